"""What a batch comes to: its totals, and whether it passes.

- With a limit on the rate of real differences: over it fails, under it passes, by the bounds of Wilson's interval. What
  could not be classified may be real, so it counts against passing and not towards failing.
- Without one (or with 0): any real difference fails, anything unclassified is inconclusive, everything else passes.
- More errors than allowed: the run is partial, whatever else it says, unless it fails already.
- Two empty answers are no comparison; where all that were not errors are empty, the run has the outcome `empty`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ppd_acc.data.report import Interval, Status, Totals
from ppd_acc.outcome import Exit
from ppd_acc.views import counted, empty_too
from ppd_accuracy.answers.said import EMPTY
from ppd_accuracy.statistics.intervals import wilson

Outcome = Literal["pass", "fail", "inconclusive", "partial", "empty"]
_EXITS: tuple[tuple[Outcome, Exit], ...] = (
    ("fail", Exit.DIFFERENT),
    ("partial", Exit.INFRASTRUCTURE),
    ("empty", Exit.INCONCLUSIVE),
    ("inconclusive", Exit.INCONCLUSIVE),
    ("pass", Exit.PASS),
)
"""From the one that outweighs all others to the one that outweighs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`rate` is the highest share of real differences among the compared samples that passes, None for none at all;
    `error_share` the highest share of samples that may be errors."""

    rate: float | None
    error_share: float
    confidence: float
    is_sequential: bool = False

    @property
    def has_rate(self) -> bool:
        return self.rate is not None and self.rate > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """`reason` is one sentence; `interval` of the rate of real differences; `more_samples` what would decide it."""

    outcome: Outcome
    reason: str
    interval: Interval
    more_samples: int | None = None

    @property
    def exit(self) -> Exit:
        return dict(_EXITS)[self.outcome]

    def described(self, limits: Limits) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "limit": limits.rate,
            "confidence": limits.confidence,
            "max_error_share": limits.error_share,
            "is_sequential": limits.is_sequential,
            "interval": {"low": self.interval.low, "high": self.interval.high},
            "more_samples": self.more_samples,
        }


def gate_of(totals: Totals, limits: Limits, stopped: Gate | None = None) -> Gate:
    """`stopped` is what a sequential test decided already."""
    judged = _judged(totals, limits, stopped)
    if judged.outcome == "fail":
        return judged
    if not totals.compared and not totals.empty:
        return _partial(totals, judged, f"none of {totals.samples} samples could be compared")
    if totals.error > limits.error_share * totals.samples:
        share = f"{totals.error} of {totals.samples} samples are errors, allowed are {limits.error_share:.2%}"
        return _partial(totals, judged, f"{share}; of the others: {judged.reason}")
    return judged


def _judged(totals: Totals, limits: Limits, stopped: Gate | None) -> Gate:
    """What the samples that are no errors say."""
    if stopped is not None:
        judged = stopped
    elif totals.empty and not totals.compared:
        return Gate(outcome="empty", reason=EMPTY, interval=totals.real_interval)
    elif limits.has_rate:
        judged = _undecided(totals, limits) if limits.is_sequential else _by_rate(totals, limits)
    else:
        judged = _by_any(totals)
    return replace(judged, reason=f"{judged.reason}{empty_too(totals.empty)}")


def _partial(totals: Totals, judged: Gate, reason: str) -> Gate:
    return Gate(outcome="partial", reason=reason, interval=totals.real_interval, more_samples=judged.more_samples)


def _by_any(totals: Totals) -> Gate:
    interval = totals.real_interval
    of = f"of {totals.compared} compared samples"
    if totals.real:
        return Gate(outcome="fail", reason=f"{totals.real} {of} differ and are no ties", interval=interval)
    if totals.unclassified:
        told = f"{totals.unclassified} {of} differ and could not be classified: a larger --noise-floor may tell"
        return Gate(outcome="inconclusive", reason=told, interval=interval)
    told = f"none {of} differs by more than a tie ({counted(totals.tie, 'tie')})"
    return Gate(outcome="pass", reason=told, interval=interval)


def _by_rate(totals: Totals, limits: Limits) -> Gate:
    from ppd_accuracy.statistics import gates  # scipy is not needed without a limit

    limit, confidence = limits.rate or 0.0, limits.confidence
    real = gates.rate(totals.real, totals.compared, limit, confidence, "real differences")
    if real.outcome == "fail" or not totals.unclassified:
        return Gate(
            outcome=real.outcome, reason=real.reason, interval=totals.real_interval, more_samples=real.more_samples
        )
    worst = totals.real + totals.unclassified
    doubt = gates.rate(worst, totals.compared, limit, confidence, "real or unclassified differences")
    if doubt.outcome == "pass":
        return Gate(outcome="pass", reason=doubt.reason, interval=totals.real_interval)
    told = f"{totals.real} real differences, {totals.unclassified} more could not be classified; {doubt.reason}"
    more = doubt.more_samples if doubt.outcome == "inconclusive" else None
    return Gate(outcome="inconclusive", reason=told, interval=totals.real_interval, more_samples=more)


def stopping(counts: Mapping[Status, int], limits: Limits) -> Gate | None:
    """What is decided by the first rows of the dataset, whose statuses are counted; None: go on.

    Sound however often it is asked (`accuracy.sequential`). Without a limit the first real difference decides.
    """
    real, total = counts.get("real", 0), sum(counts.values())
    compared = total - counts.get("error", 0) - counts.get("empty", 0)
    if not limits.has_rate:
        told = f"real differences {real} of the first {compared} compared samples; stopped"
        low, high = wilson(real, compared, limits.confidence)
        return Gate(outcome="fail", reason=told, interval=Interval(low=low, high=high)) if real else None
    from ppd_accuracy.statistics import sequential  # as below

    limit, alpha = limits.rate or 0.0, 1 - limits.confidence
    doubtful = real + counts.get("unclassified", 0)
    is_over = sequential.judge(real, compared, limit, alpha).outcome == "fail"
    if not is_over and sequential.judge(doubtful, compared, limit, alpha).outcome != "pass":
        return None
    low, high = sequential.confidence_sequence(real, compared, alpha)
    return Gate(
        outcome="fail" if is_over else "pass",
        reason=f"real differences {real} of the first {compared} compared samples; stopped,"
        f" {'over' if is_over else 'under'} the limit {limit:.3g}",
        interval=Interval(low=low, high=high),
    )


def _undecided(totals: Totals, limits: Limits) -> Gate:
    """A sequential test that has seen all samples and did not stop: no other test may be tried after it."""
    from ppd_accuracy.statistics import sequential  # as below

    limit, alpha = limits.rate or 0.0, 1 - limits.confidence
    interval = sequential.confidence_sequence(totals.real, totals.compared, alpha)
    doubtful = totals.real + totals.unclassified
    more = sequential.more_samples(doubtful, totals.compared, limit, alpha)
    missing = f"about {counted(more, 'more sample')} needed" if more else "no number of samples like these decides it"
    doubt = f" and {totals.unclassified} that could not be classified" if totals.unclassified else ""
    return Gate(
        outcome="inconclusive",
        reason=f"real differences {totals.real}{doubt} of {totals.compared}, limit {limit:.3g}, early stop: {missing}",
        interval=Interval(low=interval.low, high=interval.high),
        more_samples=more or None,
    )


def worst_of(gates: Iterable[Gate]) -> Exit:
    """A proven difference on one target outweighs an error on another one, and so on."""
    outcomes = {gate.outcome for gate in gates}
    return next((code for outcome, code in _EXITS if outcome in outcomes), Exit.INFRASTRUCTURE)
