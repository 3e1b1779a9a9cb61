"""Heads and tokens that hold another place's content.

What all rows have in common says nothing about where a row came from, so it is taken off first, and two rows are taken
for the same numbers only if they are much closer than rows usually are to each other. A place is called moved only if
its content is also much closer to the other place's than to its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.kv.findings import (
    SHOWN_MOVES,
    CacheFinding,
    Mask,
    are_blocks,
    heads_of,
    ranges_of,
    tokens_of,
    told,
    told_moves,
    told_ranges,
)
from ppd_accuracy.kv.rows import Floats
from ppd_accuracy.kv.sketches import Sketch, by_token, nearest, row_lengths

_NEAR = 0.25
"""Of the usual distance between two rows."""
_BETTER = 0.5
"""Of the distance from the place's own content."""
_PROBES, _HEAD_PROBES, _GROUP_PROBES = 96, 16, 16
_FEWEST_TOKENS = 4
"""That some of the heads must have wrong: a row's sketch alone is a few numbers."""
_ALIKE = 0.5
_FITTING = 0.95

Run = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Sketches less their common part, (..., tokens, width), and within what distance of each row of the baseline
    another one is taken for the same numbers, (..., tokens)."""

    baseline: Floats
    target: Floats
    limits: Floats

    def has_moved(self, places: NDArray[np.int64], sources: NDArray[np.int64]) -> Mask:
        """Whether places hold their sources' content rather than their own. Of one head, or of all together."""
        apart = row_lengths(self.target[places] - self.baseline[sources])
        own = row_lengths(self.target[places] - self.baseline[places])
        found: Mask = (apart <= self.limits[sources]) & (apart < _BETTER * own)
        return found

    def is_same(self, places: NDArray[np.int64], sources: NDArray[np.int64]) -> Mask:
        apart = row_lengths(self.target[places] - self.baseline[sources])
        found: Mask = apart <= self.limits[sources]
        return found


def _places(baseline: Floats, target: Floats, whole: Floats, tolerance: float) -> Places:
    """`whole` is the baseline's with the common part: rounding moves rows by a share of that."""
    limits = np.sqrt(np.minimum(tolerance**2 * _evened(whole), 2 * _NEAR**2 * _evened(baseline)))
    return Places(baseline=baseline, target=target, limits=limits)


def _evened(sketches: Floats) -> Floats:
    """Squared lengths, half that of the row, half the median over tokens: a sketch's own is off by much."""
    squares = np.vecdot(sketches, sketches)
    found: Floats = (squares + np.median(squares, axis=-1, keepdims=True)) / 2
    return found


def moved_heads(
    baseline: Sketch, target: Sketch, left: Mask, tolerance: float, block_size: int
) -> Iterator[tuple[CacheFinding, Mask]]:
    """Findings about heads, and which rows each explains. A move is of as much as a block, or half of what is wrong."""
    heads, tokens = left.shape
    wrong = np.flatnonzero(left.any(axis=1))
    if heads < 2 or not len(wrong):
        return
    whole = baseline.astype(np.float64)
    common = np.median(whole, axis=(0, 1))
    places = _places(whole - common, target - common, whole, tolerance)
    found: list[tuple[Mask, dict[int, tuple[int, Mask]]]] = []
    for head, source in _sources(places, left, wrong):
        held = _held(places, head, source, left[head])
        differing = int(left[head].sum())
        if held.sum() < min(differing, max(block_size, differing / 2)):
            continue
        held = left[head] if held.sum() >= _FITTING * differing else held
        group = next((group for group in found if _are_alike(group[0], held)), None)
        if group is None:
            group = (np.zeros(tokens, np.bool_), {})
            found.append(group)
        group[0][held] = True
        group[1][head] = (source, held)
    for where, moves in found:
        explained = np.zeros_like(left)
        for head, (_, held) in moves.items():
            explained[head] = held
        origins = tuple(source for source, _ in moves.values())
        text = told_moves("head", tuple(moves), origins, heads)
        ranges = () if where.all() else ranges_of(where)
        if ranges:
            text += f": {told_ranges(ranges)}"
        yield CacheFinding(kind="moved_heads", text=text, heads=tuple(moves), sources=origins, tokens=ranges), explained


def _are_alike(one: Mask, other: Mask) -> bool:
    return bool(np.count_nonzero(one & other) >= _ALIKE * np.count_nonzero(one | other))


def _sources(places: Places, left: Mask, wrong: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Each wrong head and the other one that is closest to it where it is wrong, by some of those tokens."""
    groups: dict[bytes, tuple[NDArray[np.int64], list[int]]] = {}
    for head in wrong:
        tokens = np.flatnonzero(left[head])
        probes = tokens[np.linspace(0, len(tokens) - 1, min(len(tokens), _HEAD_PROBES)).astype(np.int64)]
        groups.setdefault(probes.tobytes(), (probes, []))[1].append(int(head))
    nearby = [
        (head, int(source))
        for probes, members in groups.values()
        for head, source in zip(
            members, nearest(places.target[members][:, probes], places.baseline[:, probes]), strict=True
        )
    ]
    yield from sorted((head, source) for head, source in nearby if head != source)


def _held(places: Places, head: int, source: int, left: Mask) -> Mask:
    apart = row_lengths(places.target[head] - places.baseline[source])
    own = row_lengths(places.target[head] - places.baseline[head])
    found: Mask = left & (apart <= places.limits[source]) & (apart < _BETTER * own)
    return found


def moved_tokens(
    baseline: Sketch, target: Sketch, left: Mask, tolerance: float, block_size: int
) -> Iterator[tuple[CacheFinding, Mask]]:
    """Positions that hold another position's content, by how far on it comes from: of all heads, or of some."""
    heads, tokens = left.shape
    whole = baseline.astype(np.float64)
    common = np.median(whole, axis=1, keepdims=True)
    ones, others = target - common, whole - common
    found: list[tuple[int, Mask, list[int]]] = []

    def search(members: list[int]) -> bool:
        is_part = len(members) < heads
        wrong = tokens_of(left[members])
        if is_part and np.count_nonzero(wrong) < min(_FEWEST_TOKENS, tokens):
            return False
        places = _places(by_token(others[members]), by_token(ones[members]), by_token(whole[members]), tolerance)
        moves = list(_moves(places, wrong, block_size, _GROUP_PROBES if is_part else _PROBES))
        for offset, moved in moves:
            group = next((each for each in found if each[0] == offset and _are_alike(each[1], moved)), None)
            if group is None:
                found.append((offset, moved, list(members)))
            else:
                group[1][moved] = True
                group[2].extend(members)
        return bool(moves)

    for group in _groups(left):
        if not search(group) and len(group) > 1:
            for head in group:
                search([head])
    for offset, where, members in found:
        moved = np.zeros_like(left)
        moved[members] = where
        yield _moved(offset, ranges_of(where), sorted(members), left.shape, block_size), moved


def _moved(
    offset: int, ranges: tuple[Run, ...], members: list[int], shape: tuple[int, ...], block_size: int
) -> CacheFinding:
    heads, tokens = shape
    text = f"position p holds p{offset:+d}: {told_ranges(ranges)}"
    if offset % block_size == 0 and are_blocks(ranges, block_size, tokens):
        text = _told_moved_blocks(ranges, block_size, offset)
    who: tuple[int, ...] = ()
    if len(members) < heads:
        text, who = f"{text}, {told('head', members)}", tuple(members)
    return CacheFinding(kind="moved_tokens", text=text, tokens=ranges, offset=offset, heads=who)


def _groups(left: Mask) -> list[list[int]]:
    """Heads that are wrong in about the same tokens."""
    waiting = list(heads_of(left))
    groups = []
    while waiting:
        some = left[waiting]
        common = np.count_nonzero(some & some[0], axis=1)
        either = np.count_nonzero(some | some[0], axis=1)
        is_alike = common >= _ALIKE * either
        groups.append([head for head, is_in in zip(waiting, is_alike, strict=True) if is_in])
        waiting = [head for head, is_in in zip(waiting, is_alike, strict=True) if not is_in]
    return groups


def _moves(places: Places, left: Mask, block_size: int, probes: int) -> Iterator[tuple[int, Mask]]:
    """Offsets, and which tokens hold what is so far on.

    The first layer's V depends on the token alone, so that a word which comes again has the same V elsewhere. A move is
    of whole blocks, or of half of what differs and as much as a block, or of all that differs.
    """
    tokens = len(left)
    left = left.copy()
    differing = int(np.count_nonzero(left))
    enough = min(differing, max(block_size, differing / 2))
    for offset in _offsets(places, left, block_size, probes):
        here = np.arange(max(0, -offset), min(tokens, tokens - offset))
        is_same = np.zeros(tokens, np.bool_)
        is_same[here] = np.where(left[here], places.has_moved(here, here + offset), places.is_same(here, here + offset))
        runs = ranges_of(is_same)
        if np.count_nonzero(is_same & left) < enough:
            runs = tuple(run for run in runs if _is_block(run, block_size, tokens))
        ranges = tuple(_trimmed(run, left) for run in runs if left[slice(*run)].any())
        if not ranges:
            continue
        moved = np.zeros(tokens, np.bool_)
        for run in ranges:
            moved[slice(*run)] = True
        left &= ~moved
        yield offset, moved


def _is_block(run: Run, block_size: int, tokens: int) -> bool:
    return run[1] - run[0] >= block_size or are_blocks((run,), block_size, tokens)


def _trimmed(run: Run, left: Mask) -> Run:
    """Without the positions at its ends that do not differ; it has some that do."""
    places = np.flatnonzero(left[slice(*run)])
    return run[0] + int(places[0]), run[0] + int(places[-1]) + 1


def _offsets(places: Places, left: Mask, block_size: int, count: int) -> list[int]:
    """How far on the content of some of the differing positions is found, the most frequent first."""
    wrong = np.flatnonzero(left)
    if not len(wrong):
        return []
    starts = wrong[np.unique(wrong // block_size, return_index=True)[1]]
    spread = wrong[np.linspace(0, len(wrong) - 1, min(len(wrong), count)).astype(np.int64)]
    probes = np.unique(np.concatenate([starts[:: len(starts) // count + 1], spread]))
    sources = nearest(places.target[probes], places.baseline)
    is_found = places.has_moved(probes, sources) & (sources != probes)
    offsets, counts = np.unique((sources - probes)[is_found], return_counts=True)
    order = np.lexsort((np.abs(offsets), -counts))
    return [int(offset) for offset in offsets[order][:SHOWN_MOVES]]


def _told_moved_blocks(ranges: Sequence[Run], block_size: int, offset: int) -> str:
    blocks = [index for start, stop in ranges for index in range(start // block_size, -(-stop // block_size))]
    step = offset // block_size
    if len(blocks) == 1:
        return f"block {blocks[0]} holds block {blocks[0] + step} (of {block_size} tokens): {told_ranges(ranges)}"
    return f"block i holds block i{step:+d} (of {block_size} tokens), {told('block', blocks)}: {told_ranges(ranges)}"
