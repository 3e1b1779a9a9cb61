"""What the page says first: the outcome, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ppd_acc.data.report import Report, Totals

Outcome = Literal["pass", "fail", "inconclusive", "partial", "empty"]
OUTCOMES: tuple[Outcome, ...] = ("pass", "fail", "inconclusive", "partial", "empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """`reason` is the gate's where the report has one; `is_gated` says so."""

    outcome: Outcome
    told: str
    reason: str
    is_gated: bool


def headline(report: Report, totals: Totals) -> Headline:
    """The gate's outcome; without one, that of batch-compare without a limit."""
    outcome, reason = _judged(report, totals)
    gated = report.gate.get("outcome")
    is_gated = gated in OUTCOMES
    if is_gated:
        reason = str(report.gate.get("reason") or reason)
    return Headline(
        outcome=next(each for each in OUTCOMES if each == gated) if is_gated else outcome,
        told=_told(report, totals),
        reason=reason,
        is_gated=is_gated,
    )


def _judged(report: Report, totals: Totals) -> tuple[Outcome, str]:
    if totals.real:
        return "fail", "A difference beyond the noise floor fails when no limit is set."
    if totals.empty and not totals.compared and not totals.error:
        return "empty", "Neither engine said anything: no two answers were there to be compared."
    if not totals.compared:
        return ("partial", "Every sample failed.") if totals.error else ("inconclusive", "The report has no samples.")
    if totals.error:
        return "partial", f"{totals.error:,} of {totals.samples:,} samples failed, so the comparison is not complete."
    if totals.unclassified:
        if report.imported_from is not None:
            return "inconclusive", "An imported report has words and no logprobs: ties and faults look the same in it."
        return "inconclusive", "Some differences cannot be judged: a margin or the noise floor is missing."
    return "pass", "Nothing differs by more than the baseline differs from itself."


def _told(report: Report, totals: Totals) -> str:
    many = f"{totals.compared:,}"
    if totals.empty and not totals.compared and not totals.error:
        return "Every answer was empty: nothing was compared"
    if not totals.compared:
        return f"None of {totals.error:,} samples could be compared" if totals.error else "Nothing was compared"
    if totals.real:
        return f"{totals.real:,} of {many} answers {_differ(totals.real)} by more than noise"
    if totals.unclassified:
        return f"{totals.unclassified:,} of {many} answers {_differ(totals.unclassified)}, and it is not known why"
    if totals.tie:
        return f"{totals.tie:,} of {many} answers {_differ(totals.tie)}, by ties only"
    if any(not sample.has_same_finish for sample in report.samples):
        return f"All {many} answers have the same {_unit(report)}"
    also = f", {totals.empty:,} more were empty" if totals.empty else ""
    return f"All {many} answers are equal{also}"


def _differ(count: int) -> str:
    return "differs" if count == 1 else "differ"


def _unit(report: Report) -> str:
    return "words" if any(sample.unit == "words" for sample in report.samples) else "tokens"
