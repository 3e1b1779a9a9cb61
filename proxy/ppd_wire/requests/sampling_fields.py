"""What the sampling fields of a dataset's row must be: an engine's own refusal names neither file nor line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_INFINITE = float("inf")
_WHOLE: Mapping[str, tuple[int, float]] = MappingProxyType(
    {
        "max_tokens": (1, _INFINITE), "max_completion_tokens": (1, _INFINITE), "min_tokens": (0, _INFINITE),
        "top_k": (-1, _INFINITE), "seed": (-(2**63), 2**63 - 1),
    }
)  # fmt: skip
_NUMBERS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "temperature": (0, _INFINITE), "top_p": (0, 1), "min_p": (0, 1), "presence_penalty": (-2, 2),
        "frequency_penalty": (-2, 2), "repetition_penalty": (0, _INFINITE),
    }
)  # fmt: skip
_ABOVE = frozenset(("top_p", "repetition_penalty"))
"""The lowest value itself is none of theirs."""


def wrong_field(fields: Mapping[str, Any]) -> str | None:
    """The first sampling field that no engine takes, with what it must be; None where there is none. A field that is
    None counts as not given."""
    for name, value in fields.items():
        must = _must_be(name, value) if value is not None else None
        if must is not None:
            return f"{name} is {_short(value)}; it must be {must}"
    return None


def _must_be(name: str, value: Any) -> str | None:
    if name == "ignore_eos":
        return None if isinstance(value, bool) else "true or false"
    if name == "stop":
        texts = value if isinstance(value, list) else [value]
        is_right = all(isinstance(each, str) and each for each in texts)
        return None if is_right else "a text or a list of texts, none of them empty"
    low, high = _WHOLE.get(name) or _NUMBERS.get(name) or (None, None)
    if low is None or high is None:
        return None
    is_number = isinstance(value, int if name in _WHOLE else int | float) and not isinstance(value, bool)
    is_above = is_number and (value > low if name in _ABOVE else value >= low)
    if is_above and value <= high and math.isfinite(value):
        return None
    what = "an integer" if name in _WHOLE else "a number"
    start = f"above {low}" if name in _ABOVE else f"from {low}"
    return f"{what} {start}" + (f" to {high}" if high != _INFINITE else "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
