"""Counts of a report's samples by status, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ppd_acc.data.report import Interval, Report, Status, Totals
from ppd_accuracy.statistics.intervals import wilson

CONFIDENCE = 0.95


def totals_of(statuses: Iterable[Status], confidence: float = CONFIDENCE) -> Totals:
    """Counts by status with Wilson intervals. Errors were not compared; rates are None where nothing was."""
    counts = Counter(statuses)
    compared = sum(counts.values()) - counts["error"] - counts["empty"]
    divergent = compared - counts["equal"]
    any_difference, real = wilson(divergent, compared, confidence), wilson(counts["real"], compared, confidence)
    return Totals(
        samples=sum(counts.values()),
        compared=compared,
        equal=counts["equal"],
        tie=counts["tie"],
        real=counts["real"],
        unclassified=counts["unclassified"],
        error=counts["error"],
        confidence=confidence,
        rate=divergent / compared if compared else None,
        rate_interval=Interval(low=any_difference.low, high=any_difference.high),
        real_rate=counts["real"] / compared if compared else None,
        real_interval=Interval(low=real.low, high=real.high),
        empty=counts["empty"],
    )


def totals_in(report: Report) -> Totals:
    """The report's own totals, or counted anew where it has none."""
    return report.totals if report.totals is not None else totals_of(each.status for each in report.samples)
