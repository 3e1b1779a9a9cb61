"""From the rows of a tensor to its figures: the tensor's own, and those of each head, token or block of tokens.

Definitions, a the baseline and b the target, over the pairs of which both are finite:

    mse          mean of (a - b)^2                      max_abs, mean_abs   of |a - b|
    relative_l2  |a - b| / |a|; 0 where nothing differs, infinite where a is zero and b is not
    cosine       (a . b) / (|a| |b|); 1 where both are zero, 0 where one is
    max_ulp, mean_ulp   representable numbers between the two, in the type that both were compared in

All but the counts are NaN where no pair is finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.kv.rows import Floats, Rows

Axis = Literal["head", "block", "token"]
AXES: tuple[Axis, ...] = ("head", "block", "token")
_Reduction = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Arrays with one element per head, block or token; of no dimension for a whole tensor. Counts are integers.

    `pairs` are finite on both sides, `changed` of them differ. `cosine_distance` is 1 - cosine without the rounding
    that the difference from 1 would suffer.
    """

    pairs: NDArray[np.int64]
    changed: NDArray[np.int64]
    mse: Floats
    relative_l2: Floats
    max_abs: Floats
    mean_abs: Floats
    cosine: Floats
    cosine_distance: Floats
    max_ulp: Floats
    mean_ulp: Floats
    nan_baseline: NDArray[np.int64]
    nan_target: NDArray[np.int64]
    infinite_baseline: NDArray[np.int64]
    infinite_target: NDArray[np.int64]
    infinite_matches: NDArray[np.int64]


def of_tensor(rows: Rows) -> Figures:
    return _figures(rows, np.sum, np.max)


def along(rows: Rows, axis: Axis, block_size: int) -> Figures:
    """Of each head, each token, or each block of `block_size` tokens, of which the last may be shorter."""
    if axis == "head":
        return _figures(rows, lambda array: array.sum(axis=1), lambda array: array.max(axis=1))
    if axis == "token":
        return _figures(rows, lambda array: array.sum(axis=0), lambda array: array.max(axis=0))
    starts = np.arange(0, rows.tokens, block_size)
    return _figures(
        rows,
        lambda array: np.add.reduceat(array.sum(axis=0), starts),
        lambda array: np.maximum.reduceat(array.max(axis=0), starts),
    )


def relative(squared_difference: Floats, squared_baseline: Floats) -> Floats:
    """Square root of the quotient; 0 where nothing differs, infinite where only the baseline is zero."""
    with np.errstate(all="ignore"):
        quotient = np.sqrt(squared_difference / squared_baseline)
    found: Floats = np.where(squared_difference == 0, 0.0, quotient)
    return found


def token_errors(rows: Rows) -> Floats:
    """Relative L2 of each token over all heads; infinite where something is not finite."""
    errors = relative(rows.squared_difference.sum(axis=0), rows.squared_baseline.sum(axis=0))
    found: Floats = np.where(rows.not_finite.sum(axis=0) > 0, np.inf, errors)
    return found


def _figures(rows: Rows, total: _Reduction, highest: _Reduction) -> Figures:
    pairs = total(rows.pairs)
    difference, baseline, target = (
        total(squares) for squares in (rows.squared_difference, rows.squared_baseline, rows.squared_target)
    )
    distance = _cosine_distance(difference, baseline, target)
    with np.errstate(all="ignore"):
        unless_empty = np.where(pairs > 0, 0.0, np.nan)
        return Figures(
            pairs=pairs,
            changed=total(rows.changed),
            mse=difference / pairs,
            relative_l2=relative(difference, baseline) + unless_empty,
            max_abs=highest(rows.largest_difference) + unless_empty,
            mean_abs=total(rows.total_difference) / pairs,
            cosine=1.0 - distance + unless_empty,
            cosine_distance=distance + unless_empty,
            max_ulp=highest(rows.largest_ulp) + unless_empty,
            mean_ulp=total(rows.total_ulp) / pairs,
            nan_baseline=total(rows.nan_baseline),
            nan_target=total(rows.nan_target),
            infinite_baseline=total(rows.infinite_baseline),
            infinite_target=total(rows.infinite_target),
            infinite_matches=total(rows.infinite_matches),
        )


def _cosine_distance(difference: Floats, baseline: Floats, target: Floats) -> Floats:
    """1 - cosine from the three squared lengths: |a - b|^2 = (|a| - |b|)^2 + 2 |a| |b| (1 - cosine)."""
    one, other = np.sqrt(baseline), np.sqrt(target)
    with np.errstate(all="ignore"):
        distance = np.clip((difference - (one - other) ** 2) / (2 * one * other), 0.0, 2.0)
    is_zero, is_other_zero = baseline == 0, target == 0
    distance = np.where(is_zero & is_other_zero, 0.0, np.where(is_zero | is_other_zero, 1.0, distance))
    found: Floats = np.where(difference == 0, 0.0, distance)
    return found
