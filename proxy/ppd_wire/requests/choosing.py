"""How a request has the engine choose its tokens: by likelihood, by lot, or among changed logits. vLLM 0.32."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from ppd_wire.requests.generation import Fields

_PLAIN: Mapping[str, tuple[bytes, ...]] = MappingProxyType(
    {
        "frequency_penalty": (b"0", b"0.0"),
        "presence_penalty": (b"0", b"0.0"),
        "repetition_penalty": (b"1", b"1.0"),
        "logit_bias": (b"{}",),
        "min_tokens": (b"0",),
        "bad_words": (b"[]",),
        "allowed_token_ids": (),
        "structured_outputs": (),
        "response_format": (b'{"type":"text"}', b'{"type": "text"}'),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "guided_grammar": (),
        "thinking_token_budget": (),
        "tool_choice": (b'"auto"', b'"none"'),
    }
)
"""Fields that make the engine choose among changed logits, while logprobs are of the unchanged ones (vLLM's default
`raw_logprobs`), and the values besides null that do not."""
_value = msgspec.json.Decoder(Any)


def is_shaped(fields: Fields) -> bool:
    """Whether the engine chooses among changed logits."""
    return any(
        (raw := fields.get(name)) is not None and bytes(raw) not in (b"null", *plain) for name, plain in _PLAIN.items()
    )


def is_greedy(fields: Fields) -> bool:
    """Whether it takes the likeliest; without a temperature that is the engine's default, which is not greedy."""
    temperature = fields.get("temperature")
    value = _value.decode(temperature) if temperature is not None else None
    return isinstance(value, int | float) and value < 1e-5


def is_repeatable(fields: Fields) -> bool:
    """A replay can be expected to give the same answer: greedy or seeded."""
    seed, temperature = fields.get("seed"), fields.get("temperature")
    is_seeded = seed is not None and bytes(seed) != b"null"
    return is_seeded or (temperature is not None and bytes(temperature) in (b"0", b"0.0"))
