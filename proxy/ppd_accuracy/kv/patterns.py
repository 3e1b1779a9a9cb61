"""What went wrong with a tensor that differs: zero, scaled, moved or stale tokens and heads. Indices count from 0.

Every pattern is looked for in what the ones before it do not explain. A finding is made only where the numbers of the
baseline really are found in the other place, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppd_accuracy.kv.elements import BF16, ElementType
from ppd_accuracy.kv.findings import (
    SHOWN_RANGES,
    CacheFinding,
    Kind,
    Mask,
    heads_of,
    ranges_of,
    tokens_of,
    told,
    told_blocks,
    told_ranges,
)
from ppd_accuracy.kv.moves import moved_heads, moved_tokens
from ppd_accuracy.kv.rows import Floats, Rows, Tensor
from ppd_accuracy.kv.sketches import ROW_WIDTH, Sketch, match_tolerance, own_distances, sketch

_UNRELATED = 0.5
"""From this share of a row's length, or of the rows' usual distance from their common part, on."""
_FITTING = 0.95
_LEAST_SPREAD = 2.0**-6
"""Of a row's length: rows that are more alike than that say nothing about what a difference is."""
_FEWEST_SPREAD_TOKENS = 8


def find_patterns(
    rows: Rows,
    beyond: Mask,
    baseline: Tensor,
    target: Tensor,
    *,
    block_size: int,
    element: ElementType,
    rounding: ElementType | None = None,
) -> tuple[CacheFinding, ...]:
    """`beyond` is which rows differ, (heads, tokens); `element` the type whose rounding is allowed; `rounding` the one
    that all differences are consistent with: then nothing moved."""
    found = [*_not_finite(rows)]
    left = beyond & (rows.not_finite == 0)
    zero = left & (rows.squared_target == 0) & (rows.squared_baseline > 0)
    found += _zero(zero, block_size)
    empty = left & (rows.squared_baseline == 0) & (rows.squared_target > 0)
    found += _zeros("zero_baseline", "the baseline is zero there, the target is not", empty, block_size)
    left &= ~zero & ~empty
    if not left.any():
        return tuple(found)
    ones, others = sketch(target), sketch(baseline)
    if rounding is None:
        tolerance = match_tolerance(element)
        for finding, explained in _scaled(ones, others, left, element):
            found.append(finding)
            left &= ~explained
        for finding, explained in moved_heads(others, ones, left, tolerance, block_size):
            found.append(finding)
            left &= ~explained
        for finding, explained in moved_tokens(others, ones, left, tolerance, block_size):
            found.append(finding)
            left &= ~explained
    if left.any():
        unrelated = _unrelated(rows, left, others, ones) if rounding is None else np.zeros_like(left)
        found += _rest(rows, left, unrelated, block_size)
    return tuple(found)


def _not_finite(rows: Rows) -> Iterator[CacheFinding]:
    broken = rows.not_finite > 0
    if broken.any():
        heads = heads_of(broken)
        ranges = ranges_of(tokens_of(broken))
        text = f"NaN or infinite numbers in {told_ranges(ranges)}, {told('head', heads)}"
        yield CacheFinding(kind="not_finite", text=text, tokens=ranges, heads=heads)


def _zero(zero: Mask, block_size: int) -> Iterator[CacheFinding]:
    name = "everything is zero" if zero.all() else "zero tail" if _is_tail(ranges_of(tokens_of(zero)), zero) else "zero"
    yield from _zeros("zero", name, zero, block_size)


def _zeros(kind: Kind, name: str, zero: Mask, block_size: int) -> Iterator[CacheFinding]:
    if zero.any():
        ranges = ranges_of(tokens_of(zero))
        text = f"{name}: {_where(zero, ranges, block_size)}"
        yield CacheFinding(kind=kind, text=text, tokens=ranges, heads=heads_of(zero))


def _where(mask: Mask, ranges: tuple[tuple[int, int], ...], block_size: int) -> str:
    """Tokens, blocks, and heads unless it is all of them."""
    heads = heads_of(mask)
    which = f", {told('head', heads)}" if len(heads) < len(mask) else ""
    return told_ranges(ranges) + told_blocks(ranges, block_size, mask.shape[1]) + which


def _is_tail(ranges: tuple[tuple[int, int], ...], mask: Mask) -> bool:
    return len(ranges) == 1 and ranges[0][1] == mask.shape[1]


def _scaled(ones: Sketch, others: Sketch, left: Mask, element: ElementType) -> Iterator[tuple[CacheFinding, Mask]]:
    """One factor for all that differs, or one for each head."""
    whole = _factor(ones, others, left, element)
    if whole is not None:
        heads, ranges = heads_of(left), ranges_of(tokens_of(left))
        where = "" if len(heads) == len(left) else f", {told('head', heads)}"
        if sum(stop - start for start, stop in ranges) < left.shape[1]:
            where += f", {told_ranges(ranges)}"
        text = f"scaled: the target is {_told_factor(whole, element)} times the baseline{where}"
        yield CacheFinding(kind="scaled", text=text, tokens=ranges, heads=heads, factor=whole), left.copy()
        return
    factors = {}
    for head in heads_of(left):
        only = np.zeros_like(left)
        only[head] = left[head]
        factor = _factor(ones, others, only, element)
        if factor is not None:
            factors[head] = (factor, only)
    for head, (factor, only) in factors.items():
        text = f"scaled: head {head} is {_told_factor(factor, element)} times the baseline's"
        yield CacheFinding(kind="scaled", text=text, heads=(head,), factor=factor), only


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
    difference = left - factor * right
    rest = own_distances((difference + right).astype(np.float32), right.astype(np.float32))
    if not np.sort(rest)[int(_FITTING * (len(rest) - 1))] <= limit:
        return None
    is_one = not factor or abs(factor - 1) <= 2 * element.unit_roundoff
    return None if is_one or not _fits_what_varies(factor, difference, others, rows) else factor


def _fits_what_varies(factor: float, difference: Floats, others: Sketch, rows: Mask) -> bool:
    """Whether the factor is also that of what the rows do not have in common: a large channel has one of its own."""
    if rows.shape[1] < _FEWEST_SPREAD_TOKENS:
        return True
    varied = (others - np.median(others, axis=1, keepdims=True))[rows].astype(np.float64)
    length = float(np.vecdot(varied, varied).sum())
    return not length or abs(float(np.vecdot(difference, varied).sum())) <= 0.25 * abs(factor - 1) * length


def _unrelated(rows: Rows, left: Mask, baseline: Sketch, target: Sketch) -> Mask:
    """Rows as far from the baseline's as another request's are: by their length, or by what distinguishes them."""
    found: Mask = left & (rows.squared_difference > _UNRELATED**2 * rows.squared_baseline)
    if left.shape[1] < _FEWEST_SPREAD_TOKENS:
        return found
    ones, others = (
        sketches.astype(np.float64) - np.median(sketches, axis=1, keepdims=True) for sketches in (target, baseline)
    )
    squares = np.vecdot(others, others) / ROW_WIDTH
    spread = (squares + np.median(squares, axis=1, keepdims=True)) / 2
    is_telling = spread > _LEAST_SPREAD**2 * rows.squared_baseline
    apart = left & is_telling & (rows.squared_difference > _UNRELATED**2 * spread)
    for start, stop in ranges_of(tokens_of(apart)):
        part = np.zeros_like(apart)
        part[:, start:stop] = apart[:, start:stop]
        if _is_foreign(ones[part], others[part]):
            found |= part
    return found


def _is_foreign(ones: Floats, others: Floats) -> bool:
    """Whether rows vary as others do, but not with them. Under noise they vary with them, without channels less."""
    own, other, both = (float(np.vecdot(*pair).sum()) for pair in ((ones, ones), (others, others), (ones, others)))
    return own >= _UNRELATED**2 * other and both < _UNRELATED * np.sqrt(own * other)


def _errors(rows: Rows) -> Floats:
    with np.errstate(all="ignore"):
        errors = np.sqrt(rows.squared_difference / rows.squared_baseline)
    return np.nan_to_num(errors, nan=np.inf)


def _rest(rows: Rows, left: Mask, unrelated: Mask, block_size: int) -> Iterator[CacheFinding]:
    """What no move explains: unrelated content in a few stretches, or differences all over."""
    errors = _errors(rows)
    ranges = ranges_of(tokens_of(unrelated))
    small = left & ~tokens_of(unrelated)[None, :]
    if len(ranges) > SHOWN_RANGES and small.any():
        ranges, small = (), left
    if ranges:
        yield _stale(unrelated, ranges, float(errors[unrelated].max()), block_size)
    if small.any():
        places, worst = ranges_of(tokens_of(small)), float(errors[small].max())
        text = (
            f"differences in {int(small.sum())} of {small.size} rows, relative L2 up to {worst:.3g}:"
            f" {told_ranges(places)}"
        )
        yield CacheFinding(kind="scattered", text=text, tokens=places, heads=heads_of(small), error=worst)


def _stale(unrelated: Mask, ranges: tuple[tuple[int, int], ...], error: float, block_size: int) -> CacheFinding:
    heads = heads_of(unrelated)
    name, where = "stale or foreign content", _where(unrelated, ranges, block_size)
    if unrelated.all():
        name, where = "unrelated content", "every head and token, as of another request"
    elif _is_tail(ranges, unrelated):
        name = "stale tail"
    return CacheFinding(kind="stale", text=f"{name}: {where}", tokens=ranges, heads=heads, error=error)


