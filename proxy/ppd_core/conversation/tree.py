"""The tree of known steps, as columns of numbers: what a conversation takes is counted in bytes, not in objects.

A segment is a run of steps without a branch, and here a number. Its keys are the successive steps of a prompt or, for
an answer, the digests it may come back under, the full one last. A leaf is a segment that nothing continues: leaves are
kept by when they were last used. Numbers of segments that went are used again.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

from ppd_core.conversation.homes import Homes
from ppd_core.conversation.step_index import StepIndex

NONE: Final = -1
KEY_BYTES: Final = 16
MOST_TOKENS: Final = (1 << 30) - 1
_SHARDS: Final = 256
"""Of the few segments that have several keys: a table that doubles in one go would stop the loop for as long."""


class Tree:
    """`most_steps` is how many there may be; `homes` keeps count of what has which."""

    __slots__ = (
        "_before",
        "_first_free",
        "_first_free_leaf",
        "_held",
        "_home_numbers",
        "_homes",
        "_keys",
        "_leaf_segments",
        "_more_keys",
        "_newer",
        "_newest",
        "_older",
        "_oldest",
        "_parents",
        "_ties",
        "_used_at",
        "leaves",
        "steps",
    )  # fmt: skip

    def __init__(self, most_steps: int, homes: Homes) -> None:
        self._homes = homes
        self.leaves = 0
        """How many there are."""
        self._keys = bytearray()
        """The last key of each segment ..."""
        self.steps = StepIndex(most_steps, self._keys, self._has_besides)
        self._more_keys: list[dict[int, bytes]] = [{} for _ in range(_SHARDS)]
        """... and the ones before it, where there are any."""
        self._parents = array("i")
        """Of a number that is free: the next one that is."""
        self._held = array("i")
        """Twice the tokens that are held up to its end, and one where it is an answer."""
        self._home_numbers = array("i")
        self._ties = array("i")
        """How many segments continue it; where none does, its leaf as -1 - number."""
        self._first_free = NONE
        self._leaf_segments = array("i")
        self._used_at = array("d")
        self._older = array("i")
        """The leaf that was used before; of a number that is free: the next one that is."""
        self._newer = array("i")
        self._oldest = self._newest = NONE
        self._first_free_leaf = NONE

    def retire(self) -> list[list[Any] | dict[Any, Any]]:
        """What of it is many small pieces, to be freed a part at a time; nothing else may be asked of it then."""
        return [self.steps.retire(), *self._more_keys]

    # -- segments --

    def add(self, parent: int, keys: tuple[bytes, ...], held_tokens: int, home: int, *, is_answer: bool) -> int:
        """A new segment; `parent` is NONE for the first of a path. It is no leaf before it is used."""
        segment = self._first_free
        held = (held_tokens if held_tokens < MOST_TOKENS else MOST_TOKENS) * 2 + is_answer
        if segment == NONE:
            segment = len(self._parents)
            self._keys += keys[-1]
            self._parents.append(parent)
            self._held.append(held)
            self._home_numbers.append(home)
            self._ties.append(0)
        else:
            self._first_free = self._parents[segment]
            self._keys[segment * KEY_BYTES : (segment + 1) * KEY_BYTES] = keys[-1]
            self._parents[segment], self._held[segment], self._home_numbers[segment] = parent, held, home
            self._ties[segment] = 0
        if len(keys) > 1:
            self._more_keys[segment % _SHARDS][segment] = b"".join(keys[:-1])
            for key in keys:
                self.steps.add(key, segment)
        else:
            self.steps.add(keys[0], segment)
        self._homes.segments[home] += 1
        if parent != NONE:
            self._tie(parent)
        return segment

    def remove(self, segment: int) -> int:
        """Take a segment away that nothing continues; its parent."""
        for key in self.keys(segment):
            self.steps.drop(key)
        self._more_keys[segment % _SHARDS].pop(segment, None)
        if self._ties[segment] < 0:
            self._unlink(-1 - self._ties[segment])
        self._homes.left(self._home_numbers[segment])
        parent = self._parents[segment]
        self._parents[segment], self._first_free = self._first_free, segment
        if parent != NONE:
            self._ties[parent] -= 1
        return parent

    def keys(self, segment: int) -> tuple[bytes, ...]:
        last = bytes(self._keys[segment * KEY_BYTES : (segment + 1) * KEY_BYTES])
        more = self._more_keys[segment % _SHARDS].get(segment)
        if more is None:
            return (last,)
        return (*[more[at : at + KEY_BYTES] for at in range(0, len(more), KEY_BYTES)], last)

    def last_key(self, segment: int) -> bytes:
        return bytes(self._keys[segment * KEY_BYTES : (segment + 1) * KEY_BYTES])

    def _has_besides(self, segment: int, key: bytes) -> bool:
        more = self._more_keys[segment % _SHARDS].get(segment)
        return more is not None and _index(more, key) >= 0

    def has_several(self, segment: int) -> bool:
        return segment in self._more_keys[segment % _SHARDS]

    def put_before(self, segment: int, key: bytes) -> None:
        """Another key of an answer."""
        more = self._more_keys[segment % _SHARDS]
        more[segment] = key + more.get(segment, b"")
        self.steps.add(key, segment)

    def take_from(self, segment: int, key: bytes) -> None:
        """A key that is not its last."""
        self.steps.drop(key)
        more = self._more_keys[segment % _SHARDS]
        at = _index(more[segment], key) * KEY_BYTES
        left = more[segment][:at] + more[segment][at + KEY_BYTES :]
        if left:
            more[segment] = left
        else:
            del more[segment]

    def cut_after(self, segment: int, key: bytes, held_tokens: int) -> int:
        """A new segment with its keys up to `key`, which is not its last, before it; it holds `held_tokens`."""
        more = self._more_keys[segment % _SHARDS]
        end = (_index(more[segment], key) + 1) * KEY_BYTES
        upper, lower = more[segment][:end], more[segment][end:]
        keys = tuple([upper[at : at + KEY_BYTES] for at in range(0, end, KEY_BYTES)])
        for each in keys:
            self.steps.drop(each)
        if lower:
            more[segment] = lower
        else:
            del more[segment]
        above = self.add(NONE, keys, held_tokens, self._home_numbers[segment], is_answer=False)
        self._parents[above], self._parents[segment] = self._parents[segment], above
        self._ties[above] = 1
        return above

    def parent(self, segment: int) -> int:
        return self._parents[segment]

    def is_answer(self, segment: int) -> bool:
        return bool(self._held[segment] & 1)

    def mark_answer(self, segment: int) -> None:
        self._held[segment] |= 1

    def held_tokens(self, segment: int) -> int:
        return self._held[segment] >> 1

    def hold(self, segment: int, tokens: int) -> None:
        most = tokens if tokens < MOST_TOKENS else MOST_TOKENS
        self._held[segment] = most * 2 + (self._held[segment] & 1)

    def home_number(self, segment: int) -> int:
        return self._home_numbers[segment]

    def settle(self, segment: int, home: int) -> None:
        """The whole path that ends with it has that home from now on."""
        numbers, parents = self._home_numbers, self._parents
        while segment >= 0:
            if numbers[segment] != home:
                self._move_home(segment, home)
            segment = parents[segment]

    def _move_home(self, segment: int, home: int) -> None:
        homes, before = self._homes, self._home_numbers[segment]
        self._home_numbers[segment] = home
        homes.segments[home] += 1
        if self._ties[segment] < 0:
            homes.leaves[before] -= 1
            homes.leaves[home] += 1
        homes.left(before)

    def answers(self, segment: int) -> int:
        """How many answers lie on the path that ends with it."""
        count, held, parents = 0, self._held, self._parents
        while segment != NONE:
            count += held[segment] & 1
            segment = parents[segment]
        return count

    # -- leaves --

    def is_continued(self, segment: int) -> bool:
        return self._ties[segment] > 0

    def is_leaf(self, segment: int) -> bool:
        return self._ties[segment] < 0

    def use(self, segment: int, now: float) -> bool:
        """A segment that nothing continues was used: it is the newest leaf. Whether it was none before."""
        tie = self._ties[segment]
        if tie < 0:
            leaf = -1 - tie
            self._used_at[leaf] = now
            if leaf != self._newest:
                self._take_out(leaf)
                self._append(leaf)
            return False
        leaf = self._first_free_leaf
        if leaf == NONE:
            leaf = len(self._used_at)
            self._leaf_segments.append(segment)
            self._used_at.append(now)
            self._older.append(NONE)
            self._newer.append(NONE)
        else:
            self._first_free_leaf = self._older[leaf]
            self._leaf_segments[leaf], self._used_at[leaf] = segment, now
        self._ties[segment] = -1 - leaf
        self._homes.leaves[self._home_numbers[segment]] += 1
        self.leaves += 1
        self._append(leaf)
        return True

    def oldest(self) -> int:
        """The segment of the leaf that was not used for longest; NONE without one."""
        return self._leaf_segments[self._oldest] if self._oldest != NONE else NONE

    def oldest_used_at(self) -> float:
        return self._used_at[self._oldest]

    def newest_first(self, most: int) -> list[tuple[int, float]]:
        """The segments of the leaves used last, and when that was; at most so many."""
        rows: list[tuple[int, float]] = []
        leaf = self._newest
        while leaf != NONE and len(rows) < most:
            rows.append((self._leaf_segments[leaf], self._used_at[leaf]))
            leaf = self._older[leaf]
        return rows

    def _tie(self, parent: int) -> None:
        if self._ties[parent] < 0:
            self._unlink(-1 - self._ties[parent])
            self._ties[parent] = 0
        self._ties[parent] += 1

    def _append(self, leaf: int) -> None:
        self._older[leaf], self._newer[leaf] = self._newest, NONE
        if self._newest != NONE:
            self._newer[self._newest] = leaf
        else:
            self._oldest = leaf
        self._newest = leaf

    def _take_out(self, leaf: int) -> None:
        older, newer = self._older[leaf], self._newer[leaf]
        if older != NONE:
            self._newer[older] = newer
        else:
            self._oldest = newer
        if newer != NONE:
            self._older[newer] = older
        else:
            self._newest = older

    def _unlink(self, leaf: int) -> None:
        self._take_out(leaf)
        self._homes.leaves[self._home_numbers[self._leaf_segments[leaf]]] -= 1
        self._older[leaf], self._first_free_leaf = self._first_free_leaf, leaf
        self.leaves -= 1


def _index(keys: bytes, key: bytes) -> int:
    """Which of the keys it is; -1 where it is none."""
    at = keys.find(key)
    while at >= 0 and at % KEY_BYTES:
        at = keys.find(key, at + 1)
    return at // KEY_BYTES if at >= 0 else -1
