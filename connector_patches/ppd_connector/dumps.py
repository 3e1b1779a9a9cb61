"""Writes a request's KV to a file on each side, so that both can be compared (`ppd-acc check-kv`).

One `.npz` per request and rank: `layer_<i>_key` and `layer_<i>_value` of shape (KV heads, tokens, head dim), or
`layer_<i>_latent` for MLA, and `metadata`, a JSON string. bf16 is stored as its raw uint16, 8-bit types as uint8.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ppd_connector.elements import RAW_TYPES, Raw
from ppd_connector.geometry import LayerShape
from ppd_connector.store import Store

_log = logging.getLogger("ppd_connector")
_MAX_WAITING = 64
_NUMPY_TYPES = MappingProxyType({"float32": np.float32, "float16": np.float16})
_NAMES = MappingProxyType({1: ("latent",), 2: ("key", "value")})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dump:
    name: str
    metadata: dict[str, object]
    layers: list[memoryview]


class Dumper:
    """`dump` copies, a thread writes: the engine waits for the copy only. What does not fit the queue is dropped."""

    def __init__(self, directory: Path, store: Store, *, rank: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._store = store
        self._rank = rank
        self._waiting: queue.Queue[_Dump | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="ppd-dumps", daemon=True)
        self._thread.start()

    def dump(self, key: str, blocks: Sequence[int], token_ids: Sequence[int], *, side: str) -> None:
        """Dump the KV of a prompt's tokens as it is in the cache now."""
        geometry = self._store.geometry
        end = len(token_ids)
        layers = [self._store.read(layer, blocks, 0, end)() for layer in range(len(geometry.layers))]
        metadata = {
            "request_id": key,
            "side": side,
            "rank": self._rank,
            "dtype": geometry.layers[0].dtype,
            "block_size": self._store.block_tokens,
            "token_ids": list(token_ids),
            "layers": list(geometry.names),
        }
        name = f"{key}_{side}" + (f"_rank{self._rank}" if self._rank else "")
        try:
            self._waiting.put_nowait(_Dump(name=name, metadata=metadata, layers=layers))
        except queue.Full:
            _log.warning("KV of %s not dumped: %d dumps wait to be written", key, _MAX_WAITING)

    def stop(self) -> None:
        """Write what waits."""
        self._waiting.put(None)
        self._thread.join(10.0)

    def _run(self) -> None:
        while (dump := self._waiting.get()) is not None:
            try:
                self._write(dump)
            except OSError as error:
                _log.warning("KV of %s not dumped: %s", dump.name, error)

    def _write(self, dump: _Dump) -> None:
        arrays: dict[str, Raw] = {"metadata": np.array(json.dumps(dump.metadata))}
        for index, (shape, payload) in enumerate(zip(self._store.geometry.layers, dump.layers, strict=True)):
            planes = planes_of(payload, shape)
            for name, plane in zip(_NAMES[len(planes)], planes, strict=True):
                arrays[f"layer_{index}_{name}"] = plane.view(_NUMPY_TYPES.get(shape.dtype, plane.dtype))
        path = self._directory / f"{dump.name}.npz"
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        unfinished.rename(path)


def planes_of(payload: memoryview, shape: LayerShape) -> list[Raw]:
    """A payload's planes [heads, tokens, channels] as raw integers."""
    flat = np.frombuffer(payload, RAW_TYPES[shape.dtype])
    tokens = len(payload) // shape.bytes_per_token
    planes, offset = [], 0
    for channels in shape.channels:
        size = shape.heads * tokens * channels
        planes.append(flat[offset : offset + size].reshape(shape.heads, tokens, channels))
        offset += size
    return planes
