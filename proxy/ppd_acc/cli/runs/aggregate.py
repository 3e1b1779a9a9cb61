"""aggregate: several batch reports together. Describes, judges nothing.

Samples with one id are the same sample run again: their runs are not independent, so the interval is over samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_acc.cli.options import flag, switch
from ppd_acc.data.report import Sample
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Exit, Result, Trouble
from ppd_acc.reports.matching import columns, ends, is_hit, plain, rate_of, rates_table
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted, percent, span
from ppd_accuracy.statistics.intervals import Interval, wilson
from ppd_accuracy.statistics.significance import student
from ppd_accuracy.statistics.survival import Watched, kaplan_meier

_CONFIDENCE = 0.95
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """One sample over all reports that compared it. `flaky`: it diverged in some of them only."""

    sample_id: str
    runs: int
    divergent: int
    kind: Literal["always", "flaky", "never"]
    statuses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    reports: Sequence[str] = flag(required=True, nargs="+", metavar="FILE", help="batch reports")
    count_ties: bool = switch("ties are divergences, too")


def run(options: Options, _: Surroundings) -> Result:
    reports = [(path, read_report(path, "--reports")) for path in options.reports]
    rates = [(path, rate_of(report.samples, _CONFIDENCE, count_ties=options.count_ties)) for path, report in reports]
    compared = [sample for _, report in reports for sample in report.samples if sample.is_compared]
    if not compared:
        raise Trouble(f"none of the samples of {len(reports)} reports was compared")
    samples = repeated(compared, count_ties=options.count_ties)
    rate, interval, method = pooled(samples)
    kinds = {kind: [each.sample_id for each in samples if each.kind == kind] for kind in ("always", "flaky", "never")}
    curves = {unit: _curve([sample for sample in compared if sample.unit == unit]) for unit in ("tokens", "words")}
    data: dict[str, Any] = {
        "reports": [{"path": path, **plain(each)} for path, each in rates],
        "runs": len(compared),
        "samples": len(samples),
        "rate": rate,
        "interval": ends(interval),
        "interval_over": method,
        "counts_ties": options.count_ties,
        **{kind: len(ids) for kind, ids in kinds.items()},
        "always_ids": kinds["always"],
        "first_divergence": {unit: curve for unit, curve in curves.items() if curve is not None},
        "by_sample": [plain(each) for each in samples],
    }
    view: list[RenderableType] = [rates_table(rates)]
    shown = "unknown" if interval is None else span(*interval)
    view.append(f"together: {percent(rate)} of {len(compared)} runs, interval {shown} over {method}")
    counts = ", ".join(f"{len(ids)} {kind}" for kind, ids in kinds.items())
    view.append(f"{counted(len(samples), 'sample')}: {counts} divergent")
    worst = [each for each in samples if each.kind != "never"]
    if worst and len(reports) > 1:
        view.append(_table(worst))
    return Result(exit=Exit.PASS, data=data, view=tuple(view))


def repeated(compared: Sequence[Sample], *, count_ties: bool) -> tuple[Repeated, ...]:
    """Every sample over its runs, the most often divergent first."""
    runs: dict[str, list[Sample]] = {}
    for sample in compared:
        runs.setdefault(sample.sample_id, []).append(sample)
    repeats = []
    for name, seen in runs.items():
        hits = sum(is_hit(sample, count_ties=count_ties) for sample in seen)
        kind: Literal["always", "flaky", "never"] = "never" if not hits else "always" if hits == len(seen) else "flaky"
        statuses = tuple(sample.status for sample in seen)
        repeats.append(Repeated(sample_id=name, runs=len(seen), divergent=hits, kind=kind, statuses=statuses))
    return tuple(sorted(repeats, key=lambda each: -each.divergent / each.runs))


def pooled(samples: Sequence[Repeated]) -> tuple[float, Interval | None, str]:
    """The rate over all samples, each with the share of its runs; Wilson's interval where each ran once, Student's over
    the samples otherwise, None where that does not exist."""
    shares = [each.divergent / each.runs for each in samples]
    rate = sum(shares) / len(shares)
    if all(each.runs == 1 for each in samples):
        return rate, wilson(sum(each.divergent for each in samples), len(samples), _CONFIDENCE), "runs (Wilson)"
    interval = student(shares, _CONFIDENCE).interval
    if interval is not None:
        interval = Interval(max(0.0, interval.low), min(1.0, interval.high))
    return rate, interval, "samples (Student)"


def _curve(samples: Sequence[Sample]) -> Mapping[str, Any] | None:
    """How far answers stay equal, over all reports; ties are differences here."""
    if not samples:
        return None
    ends = ((sample.first_divergence, sample.compared_tokens) for sample in samples)
    watched = [Watched(compared if place is None else place, place is not None) for place, compared in ends]
    curve = kaplan_meier(watched, _CONFIDENCE)
    return {"median": curve.median, "median_interval": curve.median_interval, "divergent": curve.diverged}


def _table(samples: Sequence[Repeated]) -> Table:
    table = columns("sample", "divergent", "of runs", "statuses")
    for each in samples[:_SHOWN]:
        table.add_row(Text(each.sample_id), str(each.divergent), str(each.runs), " ".join(each.statuses[:_SHOWN]))
    if len(samples) > _SHOWN:
        table.add_row(f"and {len(samples) - _SHOWN} more", "", "", "")
    return table
