"""What went wrong with a tensor that differs: zero, scaled, moved or stale tokens and heads. Indices count from 0.

Every pattern is looked for in what the ones before it do not explain. A finding is made only where the numbers of the
baseline really are found in the other place, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppd_proxy.accuracy.kv.elements import BF16, ElementType
from ppd_proxy.accuracy.kv.rows import Rows, Tensor
from ppd_proxy.accuracy.kv.sketches import Sketch, by_token, match_tolerance, nearest, own_distances, sketch

Kind = Literal[
    "not_finite", "zero", "scaled", "moved_heads", "moved_tokens", "stale", "scattered",
    "moved_layers", "key_for_value",
]  # fmt: skip
Mask = NDArray[np.bool_]
_PROBES = 96
_MOVES = 8
_UNRELATED = 0.5
_FITTING = 0.95
_SHOWN_RANGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`tokens` are ranges, the end excluded; `offset` is how far on the content comes from; `sources` says of each of
    `heads` (or layers) whose content it holds; `factor` is target / baseline; `error` the largest relative L2 of a row.
    Empty or None where it means nothing."""

    kind: Kind
    text: str
    tokens: tuple[tuple[int, int], ...] = ()
    heads: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    offset: int | None = None
    factor: float | None = None
    error: float | None = None


def find_patterns(
    rows: Rows, beyond: Mask, baseline: Tensor, target: Tensor, *, block_size: int, element: ElementType
) -> tuple[Finding, ...]:
    """`beyond` is which rows differ, (heads, tokens); `element` the type whose rounding is allowed."""
    found = [*_not_finite(rows)]
    left = beyond & (rows.not_finite == 0)
    zero = left & (rows.squared_target == 0) & (rows.squared_baseline > 0)
    found += _zero(zero, block_size)
    left &= ~zero
    if not left.any():
        return tuple(found)
    ones, others = sketch(target), sketch(baseline)
    tolerance = match_tolerance(element)
    for finding, explained in _scaled(ones, others, left, element):
        found.append(finding)
        left &= ~explained
    for finding, explained in _moved_heads(ones, others, left, tolerance):
        found.append(finding)
        left &= ~explained
    for finding, explained in _moved_tokens(by_token(ones), by_token(others), _tokens(left), tolerance, block_size):
        found.append(finding)
        left &= ~explained
    if left.any():
        found += _rest(rows, left, block_size)
    return tuple(found)


def _not_finite(rows: Rows) -> Iterator[Finding]:
    broken = rows.not_finite > 0
    if broken.any():
        heads = _heads(broken)
        ranges = ranges_of(_tokens(broken))
        text = f"NaN or infinite numbers in {told_ranges(ranges)}, {told('head', heads)}"
        yield Finding(kind="not_finite", text=text, tokens=ranges, heads=heads)


def _zero(zero: Mask, block_size: int) -> Iterator[Finding]:
    if not zero.any():
        return
    heads = _heads(zero)
    ranges = ranges_of(_tokens(zero))
    where = told_ranges(ranges) + _told_blocks(ranges, block_size, zero.shape[1])
    if len(heads) < len(zero):
        where += f", {told('head', heads)}"
    name = "everything is zero" if zero.all() else "zero"
    if not zero.all() and len(ranges) == 1 and ranges[0][1] == zero.shape[1]:
        name = "zero tail"
    yield Finding(kind="zero", text=f"{name}: {where}", tokens=ranges, heads=heads)


def _scaled(ones: Sketch, others: Sketch, left: Mask, element: ElementType) -> Iterator[tuple[Finding, Mask]]:
    """One factor for all that differs, or one for each head."""
    whole = _factor(ones, others, left, element)
    if whole is not None:
        heads, ranges = _heads(left), ranges_of(_tokens(left))
        where = "" if len(heads) == len(left) else f", {told('head', heads)}"
        if sum(stop - start for start, stop in ranges) < left.shape[1]:
            where += f", {told_ranges(ranges)}"
        text = f"scaled: the target is {_told_factor(whole, element)} times the baseline{where}"
        yield Finding(kind="scaled", text=text, tokens=ranges, heads=heads, factor=whole), left.copy()
        return
    factors = {}
    for head in _heads(left):
        only = np.zeros_like(left)
        only[head] = left[head]
        factor = _factor(ones, others, only, element)
        if factor is not None:
            factors[head] = (factor, only)
    for head, (factor, only) in factors.items():
        text = f"scaled: head {head} is {_told_factor(factor, element)} times the baseline's"
        yield Finding(kind="scaled", text=text, heads=(head,), factor=factor), only


def _told_factor(factor: float, element: ElementType) -> str:
    """With the digits that rounding leaves."""
    return f"{factor:.6g}" if element.mantissa_bits > BF16.mantissa_bits else f"{factor:.3g}"


def _factor(ones: Sketch, others: Sketch, rows: Mask, element: ElementType) -> float | None:
    """The factor between those rows, None where it is 1 or none fits nearly all of them."""
    left, right = ones[rows].astype(np.float64), others[rows].astype(np.float64)
    length = float(np.vecdot(right, right).sum())
    if not length:
        return None
    factor = float(np.vecdot(left, right).sum()) / length
    limit = min(0.25, max(8 * element.unit_roundoff, 1e-5)) * abs(factor)
    rest = own_distances((left - factor * right + right).astype(np.float32), right.astype(np.float32))
    is_fitting = np.sort(rest)[int(_FITTING * (len(rest) - 1))] <= limit
    return factor if is_fitting and factor and abs(factor - 1) > 2 * element.unit_roundoff else None


def _moved_heads(ones: Sketch, others: Sketch, left: Mask, tolerance: float) -> Iterator[tuple[Finding, Mask]]:
    heads = len(ones)
    wrong = np.flatnonzero(left.mean(axis=1) > 0.5)
    if heads < 2 or not len(wrong):
        return
    sources, apart = nearest(ones[wrong], others)
    is_found = (apart <= tolerance) & (sources != wrong)
    if not is_found.any():
        return
    moved, origins = tuple(wrong[is_found].tolist()), tuple(sources[is_found].tolist())
    explained = np.zeros_like(left)
    explained[list(moved)] = True
    text = told_moves("head", moved, origins, heads)
    yield Finding(kind="moved_heads", text=text, heads=moved, sources=origins), explained


def told_moves(name: str, moved: Sequence[int], sources: Sequence[int], count: int) -> str:
    """In words: swapped, rotated, or one by one."""
    offsets = {(source - place) % count for place, source in zip(moved, sources, strict=True)}
    if len(moved) == 2 and tuple(sources) == tuple(reversed(moved)):
        return f"{name}s {moved[0]} and {moved[1]} are swapped"
    if len(moved) == count and len(offsets) == 1:
        offset = offsets.pop()
        return f"{name}s are rotated: {name} i holds {name} (i + {offset}) mod {count}"
    pairs = [f"{place} holds {source}" for place, source in zip(moved, sources, strict=True)]
    more = f" and {len(pairs) - _MOVES} more" if len(pairs) > _MOVES else ""
    return f"{name}s are exchanged: " + ", ".join(pairs[:_MOVES]) + more


def _moved_tokens(
    ones: Sketch, others: Sketch, left: Mask, tolerance: float, block_size: int
) -> Iterator[tuple[Finding, Mask]]:
    """Positions that hold another position's content, by how far on it comes from.

    The first layer's V depends on the token alone, so that a word which comes again has the same V elsewhere. A move is
    of whole blocks, or of half of what differs and as much as a block, or of all that differs.
    """
    tokens = len(ones)
    left = left.copy()
    differing = int(np.count_nonzero(left))
    enough = min(differing, max(block_size, differing / 2))
    for offset in _offsets(ones, others, left, tolerance, block_size):
        places = np.arange(max(0, -offset), min(tokens, tokens - offset))
        is_same = np.zeros(tokens, np.bool_)
        is_same[places] = own_distances(ones[places], others[places + offset]) <= tolerance
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
        text = f"position p holds p{offset:+d}: {told_ranges(ranges)}"
        if offset % block_size == 0 and _are_blocks(ranges, block_size, tokens):
            text = _told_moved_blocks(ranges, block_size, offset)
        yield Finding(kind="moved_tokens", text=text, tokens=ranges, offset=offset), moved[None, :]


def _is_block(run: tuple[int, int], block_size: int, tokens: int) -> bool:
    return run[1] - run[0] >= block_size or _are_blocks((run,), block_size, tokens)


def _trimmed(run: tuple[int, int], left: Mask) -> tuple[int, int]:
    """Without the positions at its ends that do not differ; it has some that do."""
    places = np.flatnonzero(left[slice(*run)])
    return run[0] + int(places[0]), run[0] + int(places[-1]) + 1


def _offsets(ones: Sketch, others: Sketch, left: Mask, tolerance: float, block_size: int) -> list[int]:
    """How far on the content of some of the differing positions is found, the most frequent first."""
    places = np.flatnonzero(left)
    if not len(places):
        return []
    starts = places[np.unique(places // block_size, return_index=True)[1]]
    spread = places[np.linspace(0, len(places) - 1, min(len(places), _PROBES)).astype(np.int64)]
    probes = np.unique(np.concatenate([_thinned(starts), spread]))
    sources, apart = nearest(ones[probes], others)
    is_found = (apart <= tolerance) & (sources != probes)
    offsets, counts = np.unique((sources - probes)[is_found], return_counts=True)
    order = np.lexsort((np.abs(offsets), -counts))
    return [int(offset) for offset in offsets[order][:_MOVES]]


def _thinned(places: NDArray[np.int64]) -> NDArray[np.int64]:
    thinned: NDArray[np.int64] = places[:: len(places) // _PROBES + 1]
    return thinned


def _rest(rows: Rows, left: Mask, block_size: int) -> Iterator[Finding]:
    """What no move explains: unrelated content in a few stretches, or differences all over."""
    with np.errstate(all="ignore"):
        errors = np.sqrt(rows.squared_difference / rows.squared_baseline)
    errors = np.nan_to_num(errors, nan=np.inf)
    unrelated = left & (errors > _UNRELATED)
    ranges = ranges_of(_tokens(unrelated))
    small = left & ~_tokens(unrelated)[None, :]
    if len(ranges) > _SHOWN_RANGES and small.any():
        ranges, small = (), left
    if ranges:
        yield _stale(unrelated, ranges, float(errors[unrelated].max()), block_size)
    if small.any():
        places, worst = ranges_of(_tokens(small)), float(errors[small].max())
        text = (
            f"differences in {int(small.sum())} of {small.size} rows, relative L2 up to {worst:.3g}:"
            f" {told_ranges(places)}"
        )
        yield Finding(kind="scattered", text=text, tokens=places, heads=_heads(small), error=worst)


def _stale(unrelated: Mask, ranges: tuple[tuple[int, int], ...], error: float, block_size: int) -> Finding:
    count, tokens = unrelated.shape
    heads = _heads(unrelated)
    name, where = "stale or foreign content", told_ranges(ranges) + _told_blocks(ranges, block_size, tokens)
    if len(heads) < count:
        where += f", {told('head', heads)}"
    if unrelated.all():
        name, where = "unrelated content", "every head and token, as of another request"
    elif len(ranges) == 1 and ranges[0][1] == tokens:
        name = "stale tail"
    return Finding(kind="stale", text=f"{name}: {where}", tokens=ranges, heads=heads, error=error)


def _tokens(mask: Mask) -> Mask:
    """In which tokens something is, of (heads, tokens)."""
    tokens: Mask = np.any(mask, axis=0)
    return tokens


def _heads(mask: Mask) -> tuple[int, ...]:
    return tuple(np.flatnonzero(np.any(mask, axis=1)).tolist())


def ranges_of(mask: Mask) -> tuple[tuple[int, int], ...]:
    """The runs of a mask as (start, end), the end excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def told_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    """Ranges of tokens for people: both ends included."""
    is_one = len(ranges) == 1 and ranges[0][1] == ranges[0][0] + 1
    return f"token{'' if is_one else 's'} {_runs(ranges)}"


def told(name: str, indices: Sequence[int]) -> str:
    """The name and the rising indices, runs as their ends."""
    mask = np.zeros(max(indices) + 1, np.bool_)
    mask[list(indices)] = True
    ranges = ranges_of(mask)
    return f"{name}{'' if len(indices) == 1 else 's'} {_runs(ranges)}"


def _runs(ranges: Sequence[tuple[int, int]]) -> str:
    parts = [f"{start}" if stop == start + 1 else f"{start} to {stop - 1}" for start, stop in ranges]
    more = f" and {len(parts) - _SHOWN_RANGES} more ranges" if len(parts) > _SHOWN_RANGES else ""
    return ", ".join(parts[:_SHOWN_RANGES]) + more


def _are_blocks(ranges: Sequence[tuple[int, int]], block_size: int, tokens: int) -> bool:
    """Whether the ranges begin and end where blocks do."""
    return all(start % block_size == 0 and (stop % block_size == 0 or stop == tokens) for start, stop in ranges)


def _told_blocks(ranges: Sequence[tuple[int, int]], block_size: int, tokens: int) -> str:
    if not _are_blocks(ranges, block_size, tokens):
        return ""
    blocks = [index for start, stop in ranges for index in range(start // block_size, -(-stop // block_size))]
    return f" ({told('block', blocks)} of {block_size} tokens)"


def _told_moved_blocks(ranges: Sequence[tuple[int, int]], block_size: int, offset: int) -> str:
    blocks = [index for start, stop in ranges for index in range(start // block_size, -(-stop // block_size))]
    step = offset // block_size
    if len(blocks) == 1:
        return f"block {blocks[0]} holds block {blocks[0] + step} (of {block_size} tokens): {told_ranges(ranges)}"
    return f"block i holds block i{step:+d} (of {block_size} tokens), {told('block', blocks)}: {told_ranges(ranges)}"
