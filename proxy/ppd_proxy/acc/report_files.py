"""Reports as files and their totals: the counterpart of `reports.read_report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ppd_proxy.acc import gating
from ppd_proxy.acc.files import write_whole
from ppd_proxy.acc.reports import Report, Sample, Totals

CONFIDENCE = 0.95


def totals_of(samples: Sequence[Sample], confidence: float = CONFIDENCE) -> Totals:
    """Counts by status with Wilson intervals. Errors were not compared; rates are None where nothing was."""
    return gating.totals_of((sample.status for sample in samples), confidence)


def totals_in(report: Report) -> Totals:
    """The report's own totals, or counted anew where it has none."""
    return report.totals if report.totals is not None else totals_of(report.samples)


def write_report(report: Report, path: Path, flag: str) -> None:
    """Writes it whole or not at all. Raises Trouble, which names the flag."""
    write_whole(path, (msgspec.json.format(msgspec.json.encode(report), indent=1), b"\n"), flag)
