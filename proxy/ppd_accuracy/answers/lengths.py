"""Whether one engine's answers are longer, in tokens, where some answers were cut at their token limit.

A cut answer (finish reason "length") is censored: its own length is at least what is seen. Leaving its pair out makes
long answers rarer and hides a bias towards them, so three views are given: Student's t and sign flips over the pairs
with no cut side, the lengths up to the limit over all pairs (what is seen, cut or not), and a score that compares only
where the longer one is known. Differences are target minus baseline. Used by `ppd-acc` alone, so scipy is imported at
the top (by way of `significance`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.statistics.gates import Decision, Outcome
from ppd_accuracy.statistics.intervals import Interval
from ppd_accuracy.statistics.planner import mean_samples
from ppd_accuracy.statistics.significance import Mean, Permutation, mcnemar, sign_flip, student

CUT = "length"
"""The finish reason of an answer cut at its token limit."""


class LengthPair(NamedTuple):
    """Lengths of both answers in tokens, and their finish reasons; None where an engine gave none."""

    baseline_tokens: int
    target_tokens: int
    baseline_finish: str | None = None
    target_finish: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """Pairs by which answer is known to be longer. `unknown`: cut where the other had not ended. `p`: sign test."""

    target_longer: int
    target_shorter: int
    equal: int
    unknown: int
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBias:
    """`complete` and `flips` are of the `pairs - censored` pairs without a cut side, `seen` is of all pairs as seen.

    `score` is of all pairs: Gehan's score of each answer (how many answers of both sides are surely shorter, less how
    many are surely longer), its paired differences under sign flips. `score_difference` is their mean, positive where
    the target's answers are longer. `p` is the one to judge by: Student's where no answer is cut and it exists, that
    of the scores otherwise; `effect` is the mean of what it judged in standard deviations. `cut_p` is McNemar's test of
    `target_cut` against `baseline_cut` (cut on that side only).
    """

    pairs: int
    censored: int
    complete: Mean
    median_difference: float | None
    flips: Permutation
    seen: Mean
    mean_baseline_tokens: float | None
    mean_target_tokens: float | None
    signs: Signs
    score: Permutation
    score_difference: float
    p: float
    judged_by: Literal["student", "gehan score"]
    effect: float | None
    baseline_cut: int
    target_cut: int
    both_cut: int
    cut_p: float


def length_bias(pairs: Sequence[LengthPair], confidence: float, seed: int) -> LengthBias:
    """All views of the pairs' lengths. `seed` is for sign flips that are too many to try."""
    for pair in pairs:
        if pair.baseline_tokens < 0 or pair.target_tokens < 0:
            raise ValueError(f"lengths {pair.baseline_tokens} and {pair.target_tokens}, must be at least 0 tokens")
    baseline = np.array([pair.baseline_tokens for pair in pairs], dtype=np.int64)
    target = np.array([pair.target_tokens for pair in pairs], dtype=np.int64)
    baseline_cut = np.array([pair.baseline_finish == CUT for pair in pairs], dtype=np.bool_)
    target_cut = np.array([pair.target_finish == CUT for pair in pairs], dtype=np.bool_)
    differences = (target - baseline).astype(np.float64)
    is_complete = ~(baseline_cut | target_cut)
    complete = differences[is_complete].tolist()
    scores = _gehan(np.concatenate((baseline, target)), np.concatenate((baseline_cut, target_cut)))
    paired_scores = (scores[len(pairs) :] - scores[: len(pairs)]).astype(np.float64)
    of_complete = student(complete, confidence)
    score = sign_flip(paired_scores.tolist(), seed)
    has_student = bool(is_complete.all()) and of_complete.p is not None
    only_baseline, only_target = int((baseline_cut & ~target_cut).sum()), int((target_cut & ~baseline_cut).sum())
    return LengthBias(
        pairs=len(pairs),
        censored=int((~is_complete).sum()),
        complete=of_complete,
        median_difference=float(np.median(complete)) if complete else None,
        flips=sign_flip(complete, seed),
        seen=student(differences.tolist(), confidence),
        mean_baseline_tokens=float(baseline.mean()) if len(pairs) else None,
        mean_target_tokens=float(target.mean()) if len(pairs) else None,
        signs=_signs(baseline, target, baseline_cut, target_cut),
        score=score,
        score_difference=float(paired_scores.mean()) if len(pairs) else 0.0,
        p=of_complete.p if has_student and of_complete.p is not None else score.p,
        judged_by="student" if has_student else "gehan score",
        effect=_effect(np.array(complete) if has_student else paired_scores),
        baseline_cut=only_baseline,
        target_cut=only_target,
        both_cut=int((baseline_cut & target_cut).sum()),
        cut_p=mcnemar(only_baseline, only_target),
    )


def judge(bias: LengthBias, alpha: float, limit_tokens: float | None = None) -> Decision:
    """Without a limit, a significant bias in either direction fails and no pair that differs passes. With one, the mean
    difference must be shown to be within the limit: of the pairs without a cut side where no answer is cut, of the
    lengths up to their token limit otherwise. Pairs cut on both sides say nothing. Where all differences are the same
    there is no interval, and a sign test of how many are on one side of the limit decides."""
    if limit_tokens is not None and not limit_tokens >= 0:
        raise ValueError(f"limit is {limit_tokens} tokens, must be at least 0")
    known = bias.pairs - bias.signs.unknown
    differing = bias.signs.target_longer + bias.signs.target_shorter
    if not known:
        reason = f"of {bias.pairs} pairs of answers none shows which is longer"
        return Decision(outcome="inconclusive", reason=reason)
    if not differing:
        return Decision(outcome="pass", reason=f"no pair of {known} differs in length", p=bias.p)
    mean = bias.seen if bias.censored else bias.complete
    seen = f"target minus baseline {mean.mean:+.2f} tokens, {bias.judged_by} p {bias.p:.4f}"
    if limit_tokens is not None:
        if mean.interval is None:
            return _constant_within(mean, limit_tokens, alpha, bias.p)
        return _within(mean.interval, limit_tokens, seen, bias.p)
    if bias.p <= alpha:
        judged = mean.mean if bias.judged_by == "student" else bias.score_difference or mean.mean
        longer = "longer" if judged > 0 else "shorter"
        reason = f"{seen}: the target's answers are significantly {longer}"
        return Decision(outcome="fail", reason=reason, p=bias.p, interval=mean.interval)
    needed = mean_samples(bias.effect or 0.0, alpha)
    more = None if needed is None else max(1, needed - bias.pairs)
    what = "no number of pairs like these decides it" if more is None else f"about {more} more pairs needed"
    return Decision(
        outcome="inconclusive",
        reason=f"{seen}: inconclusive, {what}",
        p=bias.p,
        interval=mean.interval,
        more_samples=more,
    )


def _within(interval: Interval, limit_tokens: float, seen: str, p: float) -> Decision:
    outcome: Outcome = "inconclusive"
    if -limit_tokens <= interval.low and interval.high <= limit_tokens:
        outcome = "pass"
    elif interval.low > limit_tokens or interval.high < -limit_tokens:
        outcome = "fail"
    where = f"interval {interval.low:.2f} to {interval.high:.2f}, limit {limit_tokens:g} either way"
    return Decision(outcome=outcome, reason=f"{seen}, {where}: {outcome}", p=p, interval=interval)


def _constant_within(mean: Mean, limit_tokens: float, alpha: float, p: float) -> Decision:
    """All of `mean.count` differences are the same: that they are on one side of the limit has p 2 / 2**count."""
    is_within = abs(mean.mean) <= limit_tokens
    seen = f"all {mean.count} differences are {mean.mean:+g} tokens, limit {limit_tokens:g} either way"
    needed = 1 + math.ceil(math.log2(1 / alpha))
    if mean.count >= needed:
        outcome: Outcome = "pass" if is_within else "fail"
        return Decision(outcome=outcome, reason=f"{seen}: {outcome}", p=p)
    more = needed - mean.count
    reason = f"{seen}: inconclusive, {more} more pairs like these needed"
    return Decision(outcome="inconclusive", reason=reason, p=p, more_samples=more)


def _effect(values: NDArray[np.float64]) -> float | None:
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()) / spread if spread else None


def finish_table(pairs: Sequence[LengthPair]) -> tuple[tuple[str | None, str | None, int], ...]:
    """(baseline's finish reason, target's, pairs), the most frequent first."""
    counts = Counter((pair.baseline_finish, pair.target_finish) for pair in pairs)
    return tuple((*reasons, count) for reasons, count in counts.most_common())


def _signs(
    baseline: NDArray[np.int64],
    target: NDArray[np.int64],
    baseline_cut: NDArray[np.bool_],
    target_cut: NDArray[np.bool_],
) -> Signs:
    # An answer that is cut at n tokens would have been longer than one that ended within them.
    longer = ~baseline_cut & ((target > baseline) | (target_cut & (target == baseline)))
    shorter = ~target_cut & ((target < baseline) | (baseline_cut & (target == baseline)))
    equal = ~baseline_cut & ~target_cut & (target == baseline)
    counts = int(longer.sum()), int(shorter.sum()), int(equal.sum())
    return Signs(
        target_longer=counts[0],
        target_shorter=counts[1],
        equal=counts[2],
        unknown=len(baseline) - sum(counts),
        p=mcnemar(counts[0], counts[1]),
    )


def _gehan(lengths: NDArray[np.int64], is_cut: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each length: how many of all are surely shorter, less how many are surely longer.

    i is surely shorter than j if i is complete and either i < j, or i = j and j is cut.
    """
    # Twice the length, and one more where it was cut: a complete i is surely shorter than j where i's key is less.
    keys = 2 * lengths + is_cut
    whole, everything = np.sort(keys[~is_cut]), np.sort(keys)
    shorter = np.searchsorted(whole, keys, side="left")
    longer = np.where(is_cut, 0, len(keys) - np.searchsorted(everything, keys, side="right"))
    return (shorter - longer).astype(np.int64)
