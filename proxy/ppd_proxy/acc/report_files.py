"""Reports as files and their totals: the counterpart of `reports.read_report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ppd_proxy.acc.files import write_whole
from ppd_proxy.acc.reports import REPORT_VERSION, Interval, Report, Sample, Totals
from ppd_proxy.accuracy.intervals import wilson

CONFIDENCE = 0.95


def totals_of(samples: Sequence[Sample], confidence: float = CONFIDENCE) -> Totals:
    """Counts by status with Wilson intervals. Errors were not compared; rates are None where nothing was."""
    counts = Counter(sample.status for sample in samples)
    compared = len(samples) - counts["error"]
    divergent = counts["tie"] + counts["real"] + counts["unclassified"]
    not_ties = divergent - counts["tie"]
    return Totals(
        samples=len(samples),
        compared=compared,
        equal=counts["equal"],
        tie=counts["tie"],
        real=counts["real"],
        unclassified=counts["unclassified"],
        error=counts["error"],
        confidence=confidence,
        rate=divergent / compared if compared else None,
        rate_interval=Interval(**wilson(divergent, compared, confidence)._asdict()),
        real_rate=not_ties / compared if compared else None,
        real_interval=Interval(**wilson(not_ties, compared, confidence)._asdict()),
    )


def totals_in(report: Report) -> Totals:
    """The report's own totals, or counted anew where it has none."""
    return report.totals if report.totals is not None else totals_of(report.samples)


def document_of(report: Report) -> dict[str, Any]:
    """Plain JSON types, with the kind and version that readers look for."""
    return {"kind": report.kind, "version": REPORT_VERSION, **msgspec.to_builtins(report)}


def write_report(report: Report, path: Path, flag: str) -> None:
    """Writes it whole or not at all. Raises Trouble, which names the flag."""
    write_whole(path, (msgspec.json.format(msgspec.json.encode(document_of(report)), indent=1), b"\n"), flag)
