"""How much structure a JSON text has, told while its bytes arrive and before anything of it is decoded.

Decoding is one call that nothing interrupts, and its cost goes with the number of values, not of bytes: 48 MB of `[],`
are 16 million objects. Owns the two figures that bound it, depth and values, and the limits on them. What is no JSON is
counted all the same: a decoder stops at the first mistake, and up to there both read the same.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

SLICE_BYTES: Final = 65536
"""What is looked at in one go: at most 2 ms, ordinary text takes 0.3."""
COSTLY_VALUES: Final = 8
"""An array, an object and a member of an object cost a decoder as much as so many numbers, and count as so many."""
MAX_FIELDS: Final = 4096
"""Members of the outermost object: all of them are taken apart in one go."""

_BACKSLASH: Final = b"\\"
_NO_MARKS: Final = bytes(byte for byte in range(256) if byte not in b'[]{},:"')
_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_COMMA, _OPEN, _CLOSE = b",[]"


class TooMuch(msgspec.Struct, frozen=True):
    """What a text has too much of, and how much it has as far as it was read."""

    what: str
    found: int
    limit: int


class Structure:
    """Takes a JSON text piece by piece; the pieces may end anywhere, inside an escape too.

    `depth` is that of the end of what was read, `deepest` the greatest so far. `values` are the commas, one
    less than an array or object has members, and `COSTLY_VALUES` for each array, object and member of an object.
    `fields` are the commas of the outermost array or object. Nothing inside a string counts.
    """

    __slots__ = ("_is_in_string", "_max_depth", "_max_values", "_rest", "deepest", "depth", "fields", "values")

    def __init__(self, *, max_depth: int, max_values: int) -> None:
        self._max_depth = max_depth
        self._max_values = max_values
        self._is_in_string = False
        self._rest = b""
        self.depth = 0
        self.deepest = 0
        self.fields = 0
        self.values = 0

    def feed(self, data: bytes) -> TooMuch | None:
        """Read on; what there is too much of, as soon as there is. Then nothing more may be fed."""
        for start in range(0, len(data), SLICE_BYTES):
            self.read(data[start : start + SLICE_BYTES])
            if self.deepest > self._max_depth:
                return TooMuch("levels of nesting", self.deepest, self._max_depth)
            if self.values > self._max_values:
                return TooMuch("values", self.values, self._max_values)
            if self.fields > MAX_FIELDS:
                return TooMuch("fields", self.fields, MAX_FIELDS)
        return None

    def read(self, data: bytes) -> None:
        """Read on, whatever the limits."""
        if self._rest or _BACKSLASH in data:
            data = self._without_escapes(data)
        parts = data.translate(None, _NO_MARKS).split(b'"')
        shape = b"".join(parts[self._is_in_string :: 2]).translate(_ALIKE)
        self._is_in_string ^= len(parts) % 2 == 0
        commas, opens = shape.count(b","), shape.count(b"[")
        self.values += commas + COSTLY_VALUES * (opens + shape.count(b":"))
        if shape:
            self._follow(np.frombuffer(shape, np.uint8))

    def _follow(self, shape: NDArray[np.uint8]) -> None:
        depths = np.cumsum((shape == _OPEN).view(np.int8) - (shape == _CLOSE).view(np.int8), dtype=np.int32)
        depths += self.depth
        self.depth = int(depths[-1])
        self.deepest = max(self.deepest, int(depths.max()))
        self.fields += int(np.count_nonzero((depths == 1) & (shape == _COMMA)))

    def _without_escapes(self, data: bytes) -> bytes:
        """Without escaped backslashes and escaped quotes; a backslash at the end waits for what it escapes."""
        data = self._rest + data
        self._rest = _BACKSLASH if (len(data) - len(data.rstrip(_BACKSLASH))) % 2 else b""
        return data[: len(data) - len(self._rest)].replace(b"\\\\", b"").replace(b'\\"', b"")
