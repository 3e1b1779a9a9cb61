"""Medians, intervals and outliers of measured times. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WAIT_S = 0.5
"""A time this much above its median is counted apart: it waited for something that is not the route's cost."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the limits of its interval."""

    value: float
    low: float
    high: float


def median(values: Sequence[float]) -> float:
    """The median; ValueError where there is no value."""
    if not values:
        raise ValueError("the median of nothing")
    return float(np.median(values))


def is_wait(value_s: float, median_s: float) -> bool:
    return value_s > median_s + WAIT_S


def ratio_of_medians(
    numerator: Sequence[Sequence[float]],
    denominator: Sequence[Sequence[float]],
    *,
    seed: int,
    resamples: int = 4000,
    confidence: float = 0.95,
) -> Interval:
    """Median of all numerators over median of all denominators, with a percentile bootstrap interval.

    Each inner sequence is one conversation, and whole conversations are drawn, because the turns of one are not
    independent of each other. ValueError when a side has no value at all.
    """
    generator = np.random.default_rng(seed)
    sides = [_as_rows(numerator), _as_rows(denominator)]
    value = float(np.nanmedian(sides[0]) / np.nanmedian(sides[1]))
    drawn = []
    for rows in sides:
        picks = generator.integers(len(rows), size=(resamples, len(rows)))
        drawn.append(np.nanmedian(rows[picks].reshape(resamples, -1), axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn[0] / drawn[1], (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def _as_rows(conversations: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """One row per conversation that has values, filled up with NaN."""
    kept = [values for values in conversations if values]
    if not kept:
        raise ValueError("no conversation has a value")
    rows = np.full((len(kept), max(map(len, kept))), np.nan)
    for row, values in zip(rows, kept, strict=True):
        row[: len(values)] = values
    return rows
