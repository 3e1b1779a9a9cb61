"""Three outcomes: pass, fail, or inconclusive with the number of samples that are missing.

With a limit, the interval decides: its upper bound is at most the limit (pass), its lower bound is over it (fail), or
neither. Of a share, the exact binomial test must agree: Wilson's interval is too short for a handful of samples.
Without a limit, a comparison decides: significant harm fails; significant gain, or no pair that differs,
passes; anything else is inconclusive. A number that is none never passes. Used by `ppd-acc` alone (scipy at the top).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import scipy

from ppd_accuracy.statistics.intervals import Interval, difference, paired_difference, wilson
from ppd_accuracy.statistics.planner import MOST, paired_samples, unpaired_samples
from ppd_accuracy.statistics.significance import fisher, mcnemar

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`reason` is one sentence. `p` is of the test that decided, None where an interval did; `interval` is of what was
    judged, None where there is none. `more_samples` is at least 1, and None where no number of them would decide it:
    the rate equals the limit, or neither run is worse. Of an unpaired comparison it is the number for each run."""

    outcome: Outcome
    reason: str
    p: float | None = None
    interval: Interval | None = None
    more_samples: int | None = None


def rate(hits: int, total: int, limit: float, confidence: float, name: str = "rate") -> Decision:
    """A share of samples against the highest one allowed, by Wilson's interval and the exact binomial test.

    By the interval alone, one real difference in 17 samples fails a limit of 1 %, which 16 % of runs exactly at the
    limit would; both together fail at most (1 - confidence) / 2 of them, whatever the number of samples.
    `more_samples` supposes the observed rate, and no hit where nothing was seen yet.
    """
    _require_limit(limit, 0.0, 1.0)
    _require_confidence(confidence)
    if not 0 <= hits <= total:
        raise ValueError(f"hits is {hits} of {total}, must be from 0 to that")
    interval = wilson(hits, total, confidence)
    seen = f"{name} {hits} of {total}, interval {_percent(interval)}, limit {limit:.3g}"
    level = (1 - confidence) / 2
    if total and interval.high <= limit and (limit == 1 or scipy.stats.binom.cdf(hits, total, limit) <= level):
        return Decision(outcome="pass", reason=f"{seen}: at most the limit", interval=interval)
    if total and interval.low > limit and scipy.stats.binom.sf(hits - 1, total, limit) <= level:
        return Decision(outcome="fail", reason=f"{seen}: over the limit", interval=interval)
    observed = hits / total if total else 0.0
    more = _more(total, _samples_to_clear(observed, limit, confidence))
    return Decision(outcome="inconclusive", reason=f"{seen}: {_missing(more)}", interval=interval, more_samples=more)


def paired(harms: int, gains: int, both: int, total: int, alpha: float) -> Decision:
    """Two runs of the same samples: hit in the second only (`harms`), in the first only (`gains`), in both.

    Exact McNemar test, Newcombe's interval for pairs of the second rate minus the first.
    """
    _require_confidence(1 - alpha)
    if min(harms, gains, both) < 0 or harms + gains + both > total:
        raise ValueError(f"harms {harms}, gains {gains}, both {both} of {total} pairs, must be from 0 to that together")
    if not total:
        return Decision(outcome="inconclusive", reason="no pair to compare")
    p, interval = mcnemar(harms, gains), paired_difference(gains, harms, both, total, 1 - alpha)
    if not harms + gains:
        return Decision(outcome="pass", reason=f"none of {total} pairs differs", p=p, interval=interval)
    seen = f"{harms} worse and {gains} better of {total} pairs, McNemar p {p:.4f}"
    if p <= alpha:
        return _significant(harms > gains, seen, p, interval)
    more = _more(total, paired_samples(harms / total, gains / total, alpha))
    return Decision(
        outcome="inconclusive", reason=f"{seen}: {_missing(more)}", p=p, interval=interval, more_samples=more
    )


def unpaired(hits: int, total: int, other_hits: int, other_total: int, alpha: float) -> Decision:
    """Two runs of different samples; more hits in the second are harm. Fisher's test, Newcombe's interval of the
    second rate minus the first."""
    _require_confidence(1 - alpha)
    p = fisher(hits, total, other_hits, other_total)
    if not total or not other_total:
        return Decision(outcome="inconclusive", reason=f"{total} samples against {other_total}: nothing to compare")
    interval = difference(other_hits, other_total, hits, total, 1 - alpha)
    seen = f"{hits} of {total} against {other_hits} of {other_total}, Fisher p {p:.4f}"
    if not hits and not other_hits:
        return Decision(outcome="pass", reason=f"{seen}: none in either run", p=p, interval=interval)
    rates = hits / total, other_hits / other_total
    if p <= alpha:
        return _significant(rates[1] > rates[0], seen, p, interval)
    more = _more(min(total, other_total), unpaired_samples(*rates, alpha))
    return Decision(
        outcome="inconclusive",
        reason=f"{seen}: {_missing(more, ' in each run')}",
        p=p,
        interval=interval,
        more_samples=more,
    )


def _significant(is_harm: bool, seen: str, p: float, interval: Interval | None) -> Decision:
    outcome: Outcome = "fail" if is_harm else "pass"
    return Decision(
        outcome=outcome,
        reason=f"{seen}: the second run is significantly {'worse' if is_harm else 'better'}",
        p=p,
        interval=interval,
    )


def _samples_to_clear(observed: float, limit: float, confidence: float) -> int | None:
    """Wilson's interval excludes the limit where the score test rejects it: solve that for the samples, and go on to
    where the exact test does, too (its tails as incomplete beta functions, which take shares of a sample)."""
    if observed == limit or not 0 < limit < 1:
        return None
    level = (1 - confidence) / 2
    z = float(scipy.stats.norm.isf(level))
    root = z * math.sqrt(limit * (1 - limit)) / abs(observed - limit)
    if root > math.sqrt(MOST):
        return None
    needed = math.ceil(root * root + 1e-9)

    def is_enough(total: int) -> bool:
        hits = observed * total
        below = scipy.special.betainc(total - hits, hits + 1, 1 - limit)
        above = scipy.special.betainc(hits, total - hits + 1, limit) if hits else 1.0
        return bool((below if observed < limit else above) <= level)

    return needed if is_enough(needed) else _first(is_enough, needed, 4 * needed)


def _first(is_enough: Callable[[int], bool], low: int, high: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _more(have: int, needed: int | None) -> int | None:
    """At least one: the samples at hand did not decide it, whatever the estimate says."""
    return None if needed is None else max(1, needed - have)


def _missing(more: int | None, where: str = "") -> str:
    if more is None:
        return "inconclusive, and no number of samples like these decides it"
    return f"inconclusive, about {more} more sample{'' if more == 1 else 's'}{where} needed"


def _percent(interval: Interval) -> str:
    return f"{interval.low:.2%} to {interval.high:.2%}"


def _require_limit(limit: float, low: float, high: float) -> None:
    if math.isnan(limit) or not low <= limit <= high:
        raise ValueError(f"limit is {limit}, must be a number from {low} to {high}")


def _require_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, must be between 0 and 1")
