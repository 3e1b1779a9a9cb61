"""Ids that cannot be guessed from earlier ones: request ids, and whatever else a client could see of them.

A generator that can be computed forward from its output would tell whoever reads enough answers the ids of the next
requests of others. The system's randomness is read in blocks, since each read is a system call.
"""

from __future__ import annotations

import os
from collections.abc import Callable

KEY_BYTES = 16
_BLOCK_KEYS = 256


class KeySource:
    """Each call gives 32 hex digits that were given to nobody before. `read` gives so many random bytes."""

    __slots__ = ("_keys", "_read")

    def __init__(self, read: Callable[[int], bytes] = os.urandom) -> None:
        self._read = read
        self._keys: list[str] = []

    def __call__(self) -> str:
        if not self._keys:
            digits = self._read(KEY_BYTES * _BLOCK_KEYS).hex()
            width = 2 * KEY_BYTES
            self._keys = [digits[start : start + width] for start in range(0, len(digits), width)]
        return self._keys.pop()
