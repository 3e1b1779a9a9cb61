"""Intervals of shares: Wilson's for one, Newcombe's for the difference of two (Newcombe 1998, method 10)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    low: float
    high: float


def wilson(hits: int, total: int, confidence: float) -> Interval:
    """Two-sided interval of hits / total; [0, 1] where nothing was seen."""
    if not total:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def difference(hits: int, total: int, other_hits: int, other_total: int, confidence: float) -> Interval:
    """Interval of hits / total - other_hits / other_total."""
    if not total or not other_total:
        return Interval(-1.0, 1.0)
    share, other = hits / total, other_hits / other_total
    one, two = wilson(hits, total, confidence), wilson(other_hits, other_total, confidence)
    low = share - other - math.hypot(share - one.low, two.high - other)
    high = share - other + math.hypot(one.high - share, other - two.low)
    return Interval(max(-1.0, low), min(1.0, high))
