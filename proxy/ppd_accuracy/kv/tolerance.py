"""Is a difference no more than rounding to an element type does? The tolerance, and the verdict on one tensor.

Rounding to a type with p bits of mantissa moves a number by at most u = 2^-(p+1) of itself, so it moves a row (one
head's channels of one token) by at most u of the row's length, and no element by more than u of the row's largest.
Two results that were each rounded differ by twice that. So a tensor is within tolerance if in every row

    |a - b| <= 2 u |a|   and   max |a_i - b_i| <= 2 u max(|a_i|, |b_i|)

up to the steps of the numbers near zero, and its ordinary elements are not spoiled behind a large one (`spoiled`). Rows
are judged one by one: a bad block does not drown in a long tensor. "Consistent with rounding" says more: every single
element is where rounding would put it.

Which type: what was declared (flag, metadata), else what the elements are. fp32 and fp64 say nothing of what was
computed in. There the type is taken from the numbers: if those of the baseline (else of the target) all are bf16
numbers, say, the tolerance is bf16's. So fp32 values against their bf16 rounding are judged as bf16. What is declared
is not coarsened, nor what the baseline shows: a bf16 cache that went through fp8 lost precision. A KV cache is expected
to be stored in 16 bits, not in 8: where the target is fp8 and the baseline is not, the baseline's 16-bit type judges,
bf16 for a baseline that has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.kv.elements import BF16, FP32, FP64, ElementType, coarser, grid_of
from ppd_accuracy.kv.figures import Figures
from ppd_accuracy.kv.rows import PIECE, Rows, Tensor, count_beyond
from ppd_accuracy.kv.spoiled import FAR_SHARE, far_share, spoiled_rows

Status = Literal["identical", "rounding", "tolerance", "different", "not_finite"]
ROUNDINGS = 2
"""Both sides were rounded."""
LOST = "precision lost: "
"""Begins what a reason ends with where the target went through a coarser type."""
_SAMPLES = 4
_FEWEST_VALUES, _MANY_VALUES = 8, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Limits that replace the tolerance where they are given (the flags of the published tool)."""

    max_abs: float | None = None
    cosine: float | None = None

    @property
    def are_given(self) -> bool:
        return self.max_abs is not None or self.cosine is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayVerdict:
    """`element` is the type whose rounding is allowed; `rounding` the type that the difference is consistent with
    rounding to, None if with none; `reason` one sentence for people."""

    status: Status
    element: ElementType
    rounding: ElementType | None
    reason: str

    @property
    def is_pass(self) -> bool:
        return self.status in ("identical", "rounding", "tolerance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grids:
    """The coarsest types that all numbers of a side are numbers of; None where it is the type they were compared in."""

    baseline: ElementType | None
    target: ElementType | None

    @property
    def coarsest(self) -> ElementType | None:
        found = [grid for grid in (self.baseline, self.target) if grid is not None]
        return min(found, key=lambda grid: grid.mantissa_bits, default=None)

    @property
    def is_one_sided(self) -> bool:
        return self.baseline is not self.target


def grids_of(rows: Rows, baseline: Tensor, target: Tensor) -> Grids:
    """Reads a sample of a side whose numbers are on a grid: a handful of round numbers is no evidence of a type."""
    one = grid_of(rows.used_bits_baseline, float(rows.largest_baseline.max()), rows.element)
    other = grid_of(rows.used_bits_target, float(rows.largest_target.max()), rows.element)
    return Grids(
        baseline=one if one is not None and _has_many_values(baseline) else None,
        target=other if other is not None and _has_many_values(target) else None,
    )


def _has_many_values(tensor: Tensor) -> bool:
    heads, tokens, channels = tensor.shape
    elements = heads * tokens * channels
    step = PIECE // _SAMPLES
    starts = range(0, elements, max(step, elements // _SAMPLES))
    seen = np.concatenate([np.unique(tensor.read(start, min(start + step, elements))) for start in starts])
    return len(np.unique(seen)) >= max(_FEWEST_VALUES, min(_MANY_VALUES, elements // 2))


def is_8_bit(element: ElementType) -> bool:
    return element.mantissa_bits < BF16.mantissa_bits


def allowed_type(baseline: ElementType, target: ElementType) -> ElementType:
    """The coarser one, but no 8-bit one that only the target is: there the baseline's, bf16 where that is finer."""
    if is_8_bit(target) and not is_8_bit(baseline):
        return coarser(baseline, BF16) if baseline in (FP32, FP64) else baseline
    return coarser(baseline, target)


def tolerance_type(
    baseline: ElementType, target: ElementType, declared: ElementType | None, grids: Grids
) -> ElementType:
    """The type whose rounding is allowed between tensors of these types."""
    if declared is not None:
        return declared
    one = baseline if grids.baseline is None else coarser(baseline, grids.baseline)
    other = target if grids.target is None or target not in (FP32, FP64) else grids.target
    if is_8_bit(other) and not is_8_bit(one):
        return allowed_type(one, other)
    found = coarser(baseline, target)
    grid = grids.baseline if grids.baseline is not None else grids.target
    if found not in (FP32, FP64) or grid is None:
        return found
    return BF16 if is_8_bit(grid) and not grids.is_one_sided else grid


def rows_beyond(rows: Rows, element: ElementType) -> NDArray[np.bool_]:
    """Which rows, (heads, tokens), differ by more than the tolerance of `element`. A NaN is beyond every tolerance."""
    unit = ROUNDINGS * element.unit_roundoff
    step = ROUNDINGS * element.smallest / 2
    slack = 1 + 2.0**-16  # the sums are float32's
    highest = np.maximum(rows.largest_baseline, rows.largest_target)
    is_close = rows.largest_difference <= np.maximum(unit * highest, step) * slack
    length, difference = np.sqrt(rows.squared_baseline), np.sqrt(rows.squared_difference)
    is_close &= difference <= (unit * length + step * np.sqrt(rows.channels)) * slack
    found: NDArray[np.bool_] = ~is_close | (rows.not_finite > 0)
    return found


def differing_rows(rows: Rows, element: ElementType, baseline: Tensor, target: Tensor) -> NDArray[np.bool_]:
    """Which rows, (heads, tokens), differ by more than rounding to that type does: beyond the tolerance, or spoiled."""
    beyond = rows_beyond(rows, element)
    return beyond | spoiled_rows(rows, ~beyond, element, baseline, target)


def judge(
    rows: Rows, figures: Figures, baseline: Tensor, target: Tensor, *, declared: ElementType | None, limits: Tolerance
) -> ArrayVerdict:
    """The verdict on one tensor; reads both again where only the elements can tell."""
    is_equal = not rows.largest_ulp.any()
    grids = Grids(baseline=None, target=None) if is_equal else grids_of(rows, baseline, target)
    element = tolerance_type(baseline.element, target.element, declared, grids)
    if rows.not_finite.any():
        return ArrayVerdict(status="not_finite", element=element, rounding=None, reason=_not_finite(figures))
    if is_equal:
        return ArrayVerdict(status="identical", element=element, rounding=None, reason="identical")
    rounding, steps = _rounding(rows, grids, element, baseline, target)
    if limits.are_given:
        return _by_limits(figures, element, rounding, limits)
    changed = f"{int(figures.changed)} of {int(figures.pairs)} elements differ"
    if rounding is not None and rounding.mantissa_bits >= element.mantissa_bits:
        reason = f"consistent with {rounding.name} rounding: every element within {steps}, {changed}"
        return ArrayVerdict(status="rounding", element=element, rounding=rounding, reason=reason)
    beyond = differing_rows(rows, element, baseline, target)
    allowed = f"{ROUNDINGS} x 2^-{element.mantissa_bits + 1}"
    if not beyond.any():
        reason = f"within {element.name} tolerance: relative L2 of every row at most {allowed}, {changed}"
        return ArrayVerdict(status="tolerance", element=element, rounding=None, reason=reason)
    reason = _beyond(rows, beyond, element, allowed)
    if rounding is not None:
        lost = LOST if grids.target is rounding else ""
        reason += f"; {lost}consistent with {rounding.name} rounding"
    return ArrayVerdict(status="different", element=element, rounding=rounding, reason=reason)


def _beyond(rows: Rows, beyond: NDArray[np.bool_], element: ElementType, allowed: str) -> str:
    head, token = (int(index) for index in np.argwhere(beyond)[0])
    told = (
        f"beyond {element.name} tolerance ({allowed}): {int(beyond.sum())} of {beyond.size} rows, the first is head"
        f" {head} token {token}"
    )
    hidden = int((beyond & ~rows_beyond(rows, element)).sum())
    if hidden:
        told += (
            f"; in {hidden} of them a few large elements hide it: more than 1 in {FAR_SHARE} elements is off by over"
            f" {far_share(element):.0%}"
        )
    return told


def _rounding(
    rows: Rows, grids: Grids, element: ElementType, baseline: Tensor, target: Tensor
) -> tuple[ElementType | None, str]:
    """The type that all differences are consistent with rounding to, and how far elements may be apart then."""
    grid = grids.coarsest
    if grid is None or not grids.is_one_sided:
        grid = element if grid is None else coarser(grid, element)
    dropped = rows.element.mantissa_bits - grid.mantissa_bits
    if dropped <= 0:
        return (rows.element, "one step") if float(rows.largest_ulp.max()) <= 1 else (None, "")
    is_half = grids.is_one_sided and grids.coarsest is grid
    ulp = 1 << (dropped - 1 if is_half else dropped)
    floor = grid.smallest / 2 if is_half else grid.smallest
    if float(rows.largest_ulp.max()) > ulp and count_beyond(baseline, target, ulp=ulp, floor=floor):
        return None, ""
    return grid, "half a step" if is_half else "one step"


def _by_limits(figures: Figures, element: ElementType, rounding: ElementType | None, limits: Tolerance) -> ArrayVerdict:
    told, is_within = [], True
    max_abs, cosine = float(figures.max_abs), float(figures.cosine)
    if limits.max_abs is not None:
        is_within &= max_abs <= limits.max_abs
        told.append(f"max abs {max_abs:.4g}, at most {limits.max_abs:g} allowed")
    if limits.cosine is not None:
        is_within &= cosine >= limits.cosine
        told.append(f"cosine {cosine:.9g}, at least {limits.cosine:g} wanted")
    return ArrayVerdict(
        status="tolerance" if is_within else "different", element=element, rounding=rounding, reason="; ".join(told)
    )


def _not_finite(figures: Figures) -> str:
    told = []
    for side in ("baseline", "target"):
        nan, infinite = int(getattr(figures, f"nan_{side}")), int(getattr(figures, f"infinite_{side}"))
        if nan or infinite:
            told.append(f"{side}: {nan} NaN, {infinite} infinite")
    return "not finite, which never passes: " + "; ".join(told)
