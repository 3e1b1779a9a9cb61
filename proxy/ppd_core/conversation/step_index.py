"""Which record holds a step: a table from digests to small numbers that takes twelve bytes for each.

Entries lie side by side in many small buckets, which are searched by C: so nothing of it grows in one go, and a look-up
costs the same among ten million steps as among a hundred. An entry has six bytes of a digest of the step and four of a
number. The record of that number has the whole step.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from xxhash import xxh3_64_digest

ABSENT: Final = -1
STEP_BYTES: Final = 16
_MARK_BYTES: Final = 6
_ENTRY_BYTES: Final = 10
_STEPS_PER_BUCKET: Final = 512
"""Where there are as many as there may be; a conversation mostly has an eighth of that."""
_LEAST_BUCKETS: Final = 16
_number: Final = Struct("<I")


class StepIndex:
    """`most` is how many steps there may be. `keys` has sixteen bytes for each number, a step of its record; `holds`
    says whether a record has another step besides."""

    __slots__ = ("_buckets", "_holds", "_keys", "_mask", "count")

    def __init__(self, most: int, keys: bytearray, holds: Callable[[int, bytes], bool]) -> None:
        buckets = min(1 << 24, max(_LEAST_BUCKETS, 1 << (most // _STEPS_PER_BUCKET).bit_length()))
        self._buckets: list[bytearray | None] = [None] * buckets
        self._mask = buckets - 1
        self._keys = keys
        self._holds = holds
        self.count = 0

    def get(self, step: bytes) -> int:
        """The number of its record; ABSENT where there is none."""
        mark = xxh3_64_digest(step)
        bucket = self._buckets[(mark[0] | mark[1] << 8 | mark[7] << 16) & self._mask]
        if bucket is None:
            return ABSENT
        at = bucket.find(mark[2:])
        if at < 0:
            return ABSENT
        number: int = _number.unpack_from(bucket, at + _MARK_BYTES)[0]
        if at % _ENTRY_BYTES == 0 and self._keys.startswith(step, STEP_BYTES * number):
            return number
        at = self._find(bucket, mark[2:], step)
        return ABSENT if at < 0 else int(_number.unpack_from(bucket, at + _MARK_BYTES)[0])

    def add(self, step: bytes, number: int) -> None:
        """A step that is not there."""
        mark = xxh3_64_digest(step)
        place = (mark[0] | mark[1] << 8 | mark[7] << 16) & self._mask
        bucket = self._buckets[place]
        if bucket is None:
            bucket = self._buckets[place] = bytearray()
        bucket += mark[2:] + _number.pack(number)
        self.count += 1

    def drop(self, step: bytes) -> None:
        """To be called while its record still has it."""
        mark = xxh3_64_digest(step)
        bucket = self._buckets[(mark[0] | mark[1] << 8 | mark[7] << 16) & self._mask]
        at = -1 if bucket is None else self._find(bucket, mark[2:], step)
        if bucket is None or at < 0:
            raise KeyError(step)
        del bucket[at : at + _ENTRY_BYTES]
        self.count -= 1

    def retire(self) -> list[bytearray | None]:
        """Empty it; what comes back is to be freed a part at a time."""
        retired = self._buckets
        self._buckets = [None] * len(retired)
        self.count = 0
        return retired

    def _find(self, bucket: bytearray, mark: bytes, step: bytes) -> int:
        """Where in the bucket its entry begins; -1 where there is none."""
        at = bucket.find(mark)
        while at >= 0:
            if at % _ENTRY_BYTES == 0:
                number: int = _number.unpack_from(bucket, at + _MARK_BYTES)[0]
                if self._keys.startswith(step, STEP_BYTES * number) or self._holds(number, step):
                    return at
            at = bucket.find(mark, at + 1)
        return -1
