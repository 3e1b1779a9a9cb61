"""Which record holds a step: a table from digests to small numbers that takes twelve bytes for each.

Entries lie side by side in many small buckets, which are searched by C: so nothing of it grows in one go, and a look-up
costs the same among ten million steps as among a hundred. A bucket has six bytes of a digest of the step and four of
its number; the caller, who has the whole step, says whether it is the one that is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from xxhash import xxh3_64_digest

ABSENT: Final = -1
_MARK_BYTES: Final = 6
_ENTRY_BYTES: Final = 10
_STEPS_PER_BUCKET: Final = 512
"""Where there are as many as there may be; a conversation mostly has an eighth of that."""
_LEAST_BUCKETS: Final = 16


class StepIndex:
    """`holds` says whether the record of a number has a step; `most` is how many steps there may be."""

    __slots__ = ("_buckets", "_holds", "_mask", "count")

    def __init__(self, most: int, holds: Callable[[int, bytes], bool]) -> None:
        buckets = max(_LEAST_BUCKETS, 1 << (most // _STEPS_PER_BUCKET).bit_length())
        self._buckets: list[bytearray | None] = [None] * buckets
        self._mask = buckets - 1
        self._holds = holds
        self.count = 0

    def get(self, step: bytes) -> int:
        """The number of its record; ABSENT where there is none."""
        mark = xxh3_64_digest(step)
        bucket = self._buckets[int.from_bytes(mark[:4], "little") & self._mask]
        if bucket is None:
            return ABSENT
        at = bucket.find(mark[2:])
        if at < 0:
            return ABSENT
        number = int.from_bytes(bucket[at + _MARK_BYTES : at + _ENTRY_BYTES], "little")
        if at % _ENTRY_BYTES == 0 and self._holds(number, step):
            return number
        at = self._find(bucket, mark[2:], step)
        return ABSENT if at < 0 else int.from_bytes(bucket[at + _MARK_BYTES : at + _ENTRY_BYTES], "little")

    def add(self, step: bytes, number: int) -> None:
        """A step that is not there."""
        mark = xxh3_64_digest(step)
        place = int.from_bytes(mark[:4], "little") & self._mask
        bucket = self._buckets[place]
        if bucket is None:
            bucket = self._buckets[place] = bytearray()
        bucket += mark[2:] + number.to_bytes(4, "little")
        self.count += 1

    def drop(self, step: bytes) -> None:
        """To be called while its record still has it."""
        bucket, at = self._where(step)
        del bucket[at : at + _ENTRY_BYTES]
        self.count -= 1

    def retire(self) -> list[bytearray | None]:
        """Empty it; what comes back is to be freed a part at a time."""
        retired = self._buckets
        self._buckets = [None] * len(retired)
        self.count = 0
        return retired

    def _where(self, step: bytes) -> tuple[bytearray, int]:
        mark = xxh3_64_digest(step)
        bucket = self._buckets[int.from_bytes(mark[:4], "little") & self._mask]
        at = -1 if bucket is None else self._find(bucket, mark[2:], step)
        if bucket is None or at < 0:
            raise KeyError(step)
        return bucket, at

    def _find(self, bucket: bytearray, mark: bytes, step: bytes) -> int:
        """Where in the bucket its entry begins; -1 where there is none."""
        at = bucket.find(mark)
        while at >= 0:
            if at % _ENTRY_BYTES == 0 and self._holds(
                int.from_bytes(bucket[at + _MARK_BYTES : at + _ENTRY_BYTES], "little"), step
            ):
                return at
            at = bucket.find(mark, at + 1)
        return -1
