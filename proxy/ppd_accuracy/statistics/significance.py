"""Whether two runs differ: tests of paired and of unpaired results, and how large the difference is.

Paired means the same samples on both sides. Every p is two-sided. Used by `ppd-acc` alone, so scipy is imported at the
top; it loads its parts on first use, as long as they are named in full (`scipy.stats.t`). Counts that cannot be
(negative, or more hits than samples) and values that are no finite number raise ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from ppd_accuracy.statistics.intervals import Interval

RESAMPLES = 20_000
"""Sign flips drawn where all of them are too many: the error of a p of 0.05 is 0.0015 then."""
_ENUMERATED = 20
"""Differences up to which all sign flips are tried: half a million sums."""
_SUMS = 50_000_000
"""Additions spent on the exact distribution of sums of whole numbers."""


@dataclass(frozen=True, slots=True)
class Permutation:
    """`p`, and from how many sign flips: None where the distribution is exact."""

    p: float
    resamples: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean of differences and Student's test of whether it is 0.

    `interval` and `p` are None where t does not exist: fewer than two values, or all of them equal (all 0: p is 1).
    """

    count: int
    mean: float
    interval: Interval | None
    statistic: float | None
    degrees: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Odds ratio with its interval. `value` is None where neither run, or every sample of both, was hit; it and the
    interval's ends may be infinite."""

    value: float | None
    interval: Interval


def mcnemar(one_only: int, other_only: int) -> float:
    """Exact test of paired outcomes, from the discordant pairs: hit in one run only, hit in the other only."""
    _require_counts(one_only=one_only, other_only=other_only)
    discordant = one_only + other_only
    return float(scipy.stats.binomtest(one_only, discordant, 0.5).pvalue) if discordant else 1.0


def fisher(hits: int, total: int, other_hits: int, other_total: int) -> float:
    """Exact test of whether hits / total and other_hits / other_total, of different samples, have one rate."""
    _require_shares(hits, total, other_hits, other_total)
    table = np.array([[hits, total - hits], [other_hits, other_total - other_hits]])
    return min(1.0, float(scipy.stats.fisher_exact(table).pvalue))


def odds_ratio(hits: int, total: int, other_hits: int, other_total: int, confidence: float) -> Ratio:
    """Odds of a hit in the second run over the odds in the first: the conditional estimate with its exact interval,
    which goes with Fisher's test. A run without hits (or without misses) needs no correction: the interval is open."""
    _require_shares(hits, total, other_hits, other_total)
    _require_level("confidence", confidence)
    if hits + other_hits in (0, total + other_total):
        return Ratio(None, Interval(0.0, math.inf))
    table = [[other_hits, other_total - other_hits], [hits, total - hits]]
    found = scipy.stats.contingency.odds_ratio(table)
    ends = found.confidence_interval(confidence)
    return Ratio(float(found.statistic), Interval(float(ends.low), float(ends.high)))


def paired_odds_ratio(one_only: int, other_only: int, confidence: float) -> Ratio:
    """Odds of a hit in the other run over the odds in the one, of the same samples: the discordant pairs' ratio, with
    the exact interval that goes with McNemar's test (Clopper and Pearson's of a coin)."""
    _require_counts(one_only=one_only, other_only=other_only)
    _require_level("confidence", confidence)
    discordant = one_only + other_only
    if not discordant:
        return Ratio(None, Interval(0.0, math.inf))
    ends = scipy.stats.binomtest(other_only, discordant).proportion_ci(confidence, method="exact")
    low, high = (_odds(float(share)) for share in (ends.low, ends.high))
    return Ratio(_odds(other_only / discordant), Interval(low, high))


def sign_flip(differences: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Permutation:
    """Permutation test of paired differences: how often the sum is at least as far from 0 when every sign is a coin.

    Exact for up to 20 differences other than 0, and for whole numbers (tokens) while that is cheap. Otherwise
    `resamples` draws from `seed`; the observed one counts as a draw, so p is never 0 (Phipson and Smyth 2010).
    """
    values = _finite("differences", differences)
    sizes = np.abs(values[values != 0])
    if not len(sizes):
        return Permutation(1.0, None)
    # What is as far but for rounding is as far.
    bound = abs(math.fsum(values)) - 1e-9 * math.fsum(sizes)
    if len(sizes) <= _ENUMERATED:
        return Permutation(float((np.abs(_signed_sums(sizes)) >= bound).mean()), None)
    if np.all(sizes == np.round(sizes)) and len(sizes) * sizes.sum() <= _SUMS:
        return Permutation(_whole_number_tail(sizes.astype(np.int64), bound), None)
    generator = np.random.default_rng(seed)
    beyond, left = 0, resamples
    while left:
        count = min(left, max(1, 4_000_000 // len(sizes)))
        signs = generator.integers(0, 2, size=(count, len(sizes)), dtype=np.int8) * 2 - 1
        beyond += int((np.abs(signs @ sizes) >= bound).sum())
        left -= count
    return Permutation((1 + beyond) / (1 + resamples), resamples)


def student(differences: Sequence[float], confidence: float) -> Mean:
    """The mean of paired differences with its interval, and the t test of whether it is 0."""
    values = _finite("differences", differences)
    _require_level("confidence", confidence)
    count = len(values)
    mean = float(values.mean()) if count else 0.0
    if count < 2 or np.all(values == values[0]):
        p = 1.0 if count and not values.any() else None
        return Mean(count=count, mean=mean, interval=None, statistic=None, degrees=None, p=p)
    with np.errstate(over="ignore"):
        error = float(values.std(ddof=1)) / math.sqrt(count)
    if not (0 < error < math.inf and math.isfinite(mean)):  # numbers too small or too large for their squares
        return Mean(count=count, mean=mean, interval=None, statistic=None, degrees=None, p=None)
    statistic, degrees = mean / error, count - 1
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, degrees)) * error
    return Mean(
        count=count,
        mean=mean,
        interval=Interval(mean - half, mean + half),
        statistic=statistic,
        degrees=degrees,
        p=min(1.0, 2 * float(scipy.stats.t.sf(abs(statistic), degrees))),
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted for their number, in the order given: each may be held against the level of the whole family."""
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values {list(p_values)}: each must be in [0, 1]")
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return tuple(adjusted)


def _odds(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def _signed_sums(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """All sums with the first sign kept: the others are their mirror image."""
    sums = sizes[:1]
    for size in sizes[1:]:
        sums = np.concatenate((sums + size, sums - size))
    return sums


def _whole_number_tail(sizes: NDArray[np.int64], bound: float) -> float:
    """P(|sum| >= bound): the distribution of the sum, one coin after the other."""
    total = int(sizes.sum())
    shares = np.zeros(2 * total + 1)
    shares[total] = 1.0
    reach = 0
    for size in sizes.tolist():
        inner = shares[total - reach : total + reach + 1] / 2
        reach += size
        shares[total - reach : total + reach + 1] = 0.0
        shares[total - reach : total + reach + 1 - 2 * size] += inner
        shares[total - reach + 2 * size : total + reach + 1] += inner
    sums = np.arange(-total, total + 1)
    return min(1.0, float(shares[np.abs(sums) >= bound].sum()))


def _finite(name: str, values: Sequence[float]) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: {int((~np.isfinite(found)).sum())} of {len(found)} are no finite numbers")
    return found


def _require_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 0:
            raise ValueError(f"{name} is {value}, must be at least 0")


def _require_shares(hits: int, total: int, other_hits: int, other_total: int) -> None:
    for name, part, whole in (("hits", hits, total), ("other_hits", other_hits, other_total)):
        if not 0 <= part <= whole:
            raise ValueError(f"{name} is {part} of {whole}, must be from 0 to that")


def _require_level(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}, must be between 0 and 1")
