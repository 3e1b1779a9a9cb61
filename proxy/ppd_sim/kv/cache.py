"""The simulated prefix cache: which blocks of which token sequences an engine still holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import xxhash

from ppd_sim.model.model import pack_tokens


def chain_start(adapter: str | None, cache_salt: str) -> bytes:
    """What makes equal tokens different KV: the adapter and the cache salt."""
    return xxhash.xxh3_128_digest(f"{adapter or ''}\0{cache_salt}".encode())


def block_hashes(token_ids: Sequence[int], block_tokens: int, parent: bytes) -> list[bytes]:
    """One hash per full block, each over its parent's hash and its tokens; `parent` starts or continues a chain."""
    packed = memoryview(pack_tokens(token_ids))
    size = 4 * block_tokens
    hashes: list[bytes] = []
    for end in range(size, len(packed) + 1, size):
        parent = xxhash.xxh3_128_digest(parent + packed[end - size : end])
        hashes.append(parent)
    return hashes


class PrefixCache:
    """Blocks by hash, least recently used evicted first. `capacity_blocks` bounds it; 0 keeps nothing."""

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self.evicted_blocks = 0
        self._damaged_by_hash: OrderedDict[bytes, bool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._damaged_by_hash)

    def match(self, hashes: Sequence[bytes]) -> tuple[int, bool]:
        """How many leading blocks are held, and whether one of them is damaged; they count as just used."""
        is_damaged = False
        for count, block in enumerate(hashes):
            if block not in self._damaged_by_hash:
                return count, is_damaged
            self._damaged_by_hash.move_to_end(block)
            is_damaged = is_damaged or self._damaged_by_hash[block]
        return len(hashes), is_damaged

    def insert(self, hashes: Iterable[bytes], *, is_damaged: bool = False) -> None:
        """Hold these blocks. Of one sequence the last block goes first: a block is useless without its parents."""
        for block in reversed(list(hashes)):
            self._damaged_by_hash.setdefault(block, is_damaged)
            self._damaged_by_hash.move_to_end(block)
        while len(self._damaged_by_hash) > self.capacity_blocks:
            self._damaged_by_hash.popitem(last=False)
            self.evicted_blocks += 1

    def clear(self) -> None:
        self._damaged_by_hash.clear()
