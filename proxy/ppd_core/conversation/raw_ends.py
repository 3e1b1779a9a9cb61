"""Where remembered raw prompts end: finds the longest remembered text that a raw prompt starts with.

No IO, no text: digests made by `identity`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ppd_core.conversation.identity import BLOCK_UNITS, FINE_UNITS, RawEnd, RawSteps, exact_digest, fine_digest


class RawEnds:
    """The remembered ends, by digests.

    Two levels: a block's digest leads to the numbers of fine steps at which texts end in that block, a fine step's
    digest to the numbers of units after it. Both are one integer, a count of texts above 64 bits of a mask. A bit
    whose texts are gone costs one useless digest until the whole integer goes.
    """

    def __init__(self) -> None:
        self._marks: dict[bytes, int] = {}
        self._ends: dict[bytes, RawEnd] = {}

    @property
    def count(self) -> int:
        return len(self._ends)

    def retire(self) -> list[list[Any] | dict[Any, Any]]:
        """What it is made of, to be freed a part at a time; nothing else may be asked of it then."""
        return [self._marks, self._ends]

    def add(self, end: RawEnd) -> None:
        if end.exact in self._ends:
            return
        self._ends[end.exact] = end
        for digest, position in ((end.block, end.fine_count), (end.fine, end.tail_units)):
            self._marks[digest] = (self._marks.get(digest, 0) + _ONE_TEXT) | 1 << position

    def discard(self, exact: bytes) -> None:
        end = self._ends.pop(exact, None)
        if end is None:
            return
        for digest in (end.block, end.fine):
            self._marks[digest] -= _ONE_TEXT
            if self._marks[digest] < _ONE_TEXT:
                del self._marks[digest]

    def longest(self, steps: RawSteps) -> bytes | None:
        block_bytes = BLOCK_UNITS * steps.unit_bytes
        fine_bytes = FINE_UNITS * steps.unit_bytes
        for index in range(len(steps.blocks) - 1, -1, -1):
            block = steps.blocks[index]
            mark = self._marks.get(block)
            if mark is None:
                continue
            rest = steps.data[index * block_bytes : (index + 1) * block_bytes]
            for fine_count in _positions(mark, len(rest) // fine_bytes):
                start = fine_count * fine_bytes
                exact = self._longest_tail(fine_digest(block, rest[:start]), rest[start : start + fine_bytes], steps)
                if exact is not None:
                    return exact
        return None

    def _longest_tail(self, fine: bytes, rest: bytes, steps: RawSteps) -> bytes | None:
        mark = self._marks.get(fine)
        if mark is None:
            return None
        for tail_units in _positions(mark, len(rest) // steps.unit_bytes):
            exact = exact_digest(fine, rest[: tail_units * steps.unit_bytes])
            if exact in self._ends:
                return exact
        return None


_ONE_TEXT: Final = 1 << 64


def _positions(mark: int, highest: int) -> Iterable[int]:
    """The positions set in a mark, from `highest` down."""
    mask = mark & (_ONE_TEXT - 1) & ((2 << highest) - 1)
    while mask:
        position = mask.bit_length() - 1
        yield position
        mask ^= 1 << position
