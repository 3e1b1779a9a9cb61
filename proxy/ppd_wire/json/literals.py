"""JSON with the numbers that JSON does not have: NaN, Infinity, -Infinity, as Python's encoder writes them. No IO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_STRING_OR_LITERAL = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|(-?Infinity|NaN)', re.DOTALL)
_STAND_INS = MappingProxyType({b"NaN": b"-0e-77001", b"Infinity": b"-0e-77002", b"-Infinity": b"-0e-77003"})
_LITERALS = MappingProxyType({stand_in: literal for literal, stand_in in _STAND_INS.items()})
_STRING_OR_STAND_IN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|(-0e-7700[123])', re.DOTALL)


def hide(body: bytes) -> bytes:
    """`body` with every such literal written as a number that nobody writes; `show` puts them back."""
    return _replace(_STRING_OR_LITERAL, body, _STAND_INS)


def show(body: bytes) -> bytes:
    return _replace(_STRING_OR_STAND_IN, body, _LITERALS)


def _replace(pattern: re.Pattern[bytes], body: bytes, by: Mapping[bytes, bytes]) -> bytes:
    return pattern.sub(lambda found: by[found[1]] if found[1] else found[0], body)
