"""Stopping early: is a rate over or under its limit, asked again after every sample.

Against the claim "at most the limit" stands the likelihood of the samples under a mixture of all rates over it, divided
by that at the limit. Under the claim this ratio is a supermartingale that begins at 1, so it ever reaches 1 / alpha
with a chance of at most alpha (Ville's inequality); the same goes for the claim "at least the limit" with the rates
under it. So a false fail and a false pass each happen with a chance of at most alpha, however often one looks. An
interval from a fixed number of samples would not be valid after stopping; `confidence_sequence` is, at every moment at
once.

The mixture is Jeffreys' beta distribution, cut at the limit (Robbins 1970; Howard et al. 2021 on boundaries from
mixtures). The samples must be taken as they are in the data set: whoever counts answers as they arrive sees short
answers first, and those diverge less. Used by `ppd-acc` alone, so scipy is imported at the top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import scipy

from ppd_accuracy.statistics.intervals import Interval

_PRIOR = 0.5
_MOST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """`log_over` and `log_under` are the logarithms of the evidence that the rate is over and under the limit; a
    decision falls where one reaches log(1 / alpha). Infinite evidence (a hit where none is allowed) is a float
    infinity."""

    outcome: Literal["continue", "fail", "pass"]
    log_over: float
    log_under: float


def judge(hits: int, total: int, limit: float, alpha: float) -> Decided:
    """What is known after `total` samples. Stop at the first outcome that is not "continue": it is the decision."""
    _require(hits, total, limit, alpha)
    over, under = _evidence(hits, total, limit)
    bound = math.log(1 / alpha)
    outcome: Literal["continue", "fail", "pass"] = "continue"
    if over >= bound:
        outcome = "fail"
    elif under >= bound:
        outcome = "pass"
    return Decided(outcome=outcome, log_over=over, log_under=under)


def confidence_sequence(hits: int, total: int, alpha: float) -> Interval:
    """The rates that the samples do not exclude: the mixture over all rates is less than 1 / alpha times likelier. It
    holds the rate at all moments at once, with a chance of at least 1 - alpha."""
    if not total:
        return Interval(0.0, 1.0)
    prior = float(scipy.special.betaln(_PRIOR, _PRIOR))
    mixture = float(scipy.special.betaln(hits + _PRIOR, total - hits + _PRIOR)) - prior
    least = mixture - math.log(1 / alpha)

    def beyond(rate: float) -> float:
        return _likelihood(hits, total, rate) - least

    observed = hits / total
    low = scipy.optimize.brentq(beyond, 1e-300, observed) if hits else 0.0
    high = scipy.optimize.brentq(beyond, observed, 1 - 1e-16) if hits < total else 1.0
    return Interval(float(low), float(high))


def more_samples(hits: int, total: int, limit: float, alpha: float) -> int | None:
    """How many more samples at the observed rate decide it; None: more than anyone takes. 0 where it is decided. Of
    nothing seen yet: where none is hit."""
    _require(hits, total, limit, alpha)
    rate = hits / total if total else 0.0
    bound = math.log(1 / alpha)

    def is_decided(count: int) -> bool:
        return max(_evidence(hits + rate * (count - total), count, limit)) >= bound

    if is_decided(total):
        return 0
    high = max(1, total)
    while not is_decided(high):
        high *= 2
        if high > _MOST:
            return None
    low = total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_decided(middle) else (middle, high)
    return high - total


def _evidence(hits: float, total: int, limit: float) -> tuple[float, float]:
    """Logarithms of the two likelihood ratios. A limit of 0 is passed by no number of samples, one of 1 by any."""
    if limit <= 0:
        return (math.inf if hits else 0.0), 0.0
    if limit >= 1:
        return 0.0, math.inf
    ours, theirs = hits + _PRIOR, total - hits + _PRIOR
    mixture = float(scipy.special.betaln(ours, theirs) - scipy.special.betaln(_PRIOR, _PRIOR))
    mixture -= _likelihood(hits, total, limit)
    # The share of the beta distribution on each side of the limit, after the samples over before them.
    over, under = (
        _log(float(share(ours, theirs, limit))) - _log(float(share(_PRIOR, _PRIOR, limit)))
        for share in (scipy.special.betaincc, scipy.special.betainc)
    )
    return mixture + over, mixture + under


def _likelihood(hits: float, total: int, rate: float) -> float:
    return float(scipy.special.xlogy(hits, rate) + scipy.special.xlog1py(total - hits, -rate))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _require(hits: int, total: int, limit: float, alpha: float) -> None:
    if not 0 <= hits <= total:
        raise ValueError(f"hits is {hits} of {total}, must be from 0 to that")
    if not 0 <= limit <= 1:
        raise ValueError(f"limit is {limit}, must be in [0, 1]")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, must be between 0 and 1")
