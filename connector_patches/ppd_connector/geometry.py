"""The shape of KV as it travels, the same whatever cache layout an engine has. Standard library only.

One layer's KV of n tokens travels as its planes one after the other: K, then V (MLA has one plane, the latent). A
plane is [heads, n, channels], dense, in the cache's own element type. So two engines may differ in block size and in
how their attention backend lays a block out, and a block that is partly filled moves its used slots only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

ITEM_BYTES = MappingProxyType(
    {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1}
)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One layer of one rank: `heads` KV heads, `channels` elements per head and token for each plane."""

    heads: int
    channels: tuple[int, ...]
    dtype: str

    @property
    def bytes_per_token(self) -> int:
        return self.heads * sum(self.channels) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What one rank's KV consists of. `layers` in the order of `names`; `fingerprint` is what both sides must share."""

    names: tuple[str, ...]
    layers: tuple[LayerShape, ...]
    fingerprint: str

    @property
    def bytes_per_token(self) -> int:
        return sum(layer.bytes_per_token for layer in self.layers)


def fingerprint(
    model: Mapping[str, Any], names: Sequence[str], layers: Sequence[LayerShape], *, rank: int, ranks: int
) -> str:
    """Digest of the model's configuration and the KV's shape on one rank: KV of another model is never taken.

    `model` is the configuration without paths. It does not cover the weights: two fine-tunes of one architecture agree.
    """
    facts = {
        "model": model,
        "layers": [[name, layer.heads, layer.channels, layer.dtype] for name, layer in zip(names, layers, strict=True)],
        "rank": [rank, ranks],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def blocks_of(first_token: int, end_token: int, block_tokens: int) -> int:
    """How many blocks the tokens from `first_token` up to `end_token` touch."""
    if end_token <= first_token:
        return 0
    return -(-end_token // block_tokens) - first_token // block_tokens
