"""Intervals of shares: Wilson's for one, Newcombe's (1998, method 10 of both papers) for the difference of two."""

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
    # At the ends the bound is exact; rounding must not put it beside a limit of 0 or 1.
    return Interval(max(0.0, centre - half) if hits else 0.0, min(1.0, centre + half) if hits < total else 1.0)


def difference(hits: int, total: int, other_hits: int, other_total: int, confidence: float) -> Interval:
    """Interval of hits / total - other_hits / other_total."""
    if not total or not other_total:
        return Interval(-1.0, 1.0)
    share, other = hits / total, other_hits / other_total
    one, two = wilson(hits, total, confidence), wilson(other_hits, other_total, confidence)
    low = share - other - math.hypot(share - one.low, two.high - other)
    high = share - other + math.hypot(one.high - share, other - two.low)
    return Interval(max(-1.0, low), min(1.0, high))


def paired_difference(one_only: int, other_only: int, both: int, total: int, confidence: float) -> Interval:
    """Interval of the other run's share minus the one run's, of the same samples (Newcombe 1998, method 10 for pairs).

    The arguments count the pairs hit in that run alone and in both. Pairs that go together narrow it.
    """
    if not total:
        return Interval(-1.0, 1.0)
    neither = total - one_only - other_only - both
    margins = (both + one_only, other_only + neither, both + other_only, one_only + neither)
    together: float = both * neither - one_only * other_only
    if together > 0:
        together = max(0, 2 * together - total) / 2
    correlation = together / math.sqrt(math.prod(margins)) if all(margins) else 0.0
    share, other = margins[0] / total, margins[2] / total
    one, two = wilson(margins[0], total, confidence), wilson(margins[2], total, confidence)
    low = _apart(other - two.low, one.high - share, correlation)
    high = _apart(two.high - other, share - one.low, correlation)
    return Interval(max(-1.0, other - share - low), min(1.0, other - share + high))


def _apart(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))
