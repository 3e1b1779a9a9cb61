"""Quantiles with distribution-free intervals. Used by `ppd-acc` alone, so scipy is imported at the top.

The interval's ends are order statistics: the number of values below the true quantile is binomial whatever the
distribution is (David and Nagaraja, Order Statistics, 7.1). Few values have no interval for a far quantile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from ppd_accuracy.statistics.intervals import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """`share` of all values are at most `value`. `interval`: None where they are too few for its confidence."""

    share: float
    value: float
    interval: Interval | None


def quantile(values: Sequence[float], share: float, confidence: float) -> Quantile | None:
    """Of finite values in any order, by linear interpolation; None without values. Raises ValueError otherwise."""
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, must be between 0 and 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, must be between 0 and 1")
    ordered = np.sort(np.asarray(values, dtype=float))
    if not len(ordered):
        return None
    if not np.isfinite(ordered).all():
        raise ValueError(f"{int((~np.isfinite(ordered)).sum())} of {len(ordered)} values are no finite numbers")
    found = float(np.quantile(ordered, share))
    low, high = _ranks(len(ordered), share, confidence)
    if low < 1 or high > len(ordered):
        return Quantile(share=share, value=found, interval=None)
    return Quantile(share=share, value=found, interval=Interval(float(ordered[low - 1]), float(ordered[high - 1])))


def _ranks(count: int, share: float, confidence: float) -> tuple[int, int]:
    """Ranks, from 1, whose values enclose the quantile: each end misses it with at most half of 1 - confidence."""
    missed = (1 - confidence) / 2
    return int(scipy.stats.binom.ppf(missed, count, share)), int(scipy.stats.binom.ppf(1 - missed, count, share)) + 1
