"""diff: two batch reports side by side, sample by sample. Describes, judges nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table

from ppd_acc.cli.options import flag
from ppd_acc.cli.runs.regression import change_of, changes_table
from ppd_acc.data.report import STATUSES, Report, Sample
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Exit, Result
from ppd_acc.reports.matching import columns, match, notes_of, plain, rate_of, rates_table, require_pairs
from ppd_acc.surroundings import Surroundings
from ppd_accuracy.answers.said import Difference, differences, sentence

_CONFIDENCE = 0.95
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    old: str = flag(required=True, metavar="FILE", help="batch report of the left side")
    new: str = flag(required=True, metavar="FILE", help="batch report of the right side")


def run(options: Options, _: Surroundings) -> Result:
    old, new = read_report(options.old, "--old"), read_report(options.new, "--new")
    matched = match(old, new)
    require_pairs(matched, "--old", "--new")
    changed = [(one, other) for one, other in matched.pairs if _is_changed(one, other)]
    rows = [{**change_of(one, other), **_answers(one, other)} for one, other in changed]
    table = Counter((str(one.status), str(other.status)) for one, other in matched.pairs)
    rates = [rate_of(report.samples, _CONFIDENCE, count_ties=True) for report in (old, new)]
    data: dict[str, Any] = {
        "old": {"path": options.old, **plain(rates[0])},
        "new": {"path": options.new, **plain(rates[1])},
        "pairs": len(matched.pairs),
        "unchanged": len(matched.pairs) - len(changed),
        "statuses": [{"old": before, "new": now, "samples": count} for (before, now), count in table.most_common()],
        "changed": rows,
        "settings": settings_changed(old, new),
        "only_in_old": matched.first_only,
        "only_in_new": matched.second_only,
        "not_compared": matched.not_compared,
    }
    view: list[RenderableType] = [rates_table([("old", rates[0]), ("new", rates[1])]), _statuses(table)]
    view.append(f"{len(changed)} of {len(matched.pairs)} samples changed")
    if rows:
        view.append(changes_table("changed", rows))
        view += [f"{row['sample_id']} {line}" for row in rows[:_SHOWN] for line in _lines(row)]
    view += [f"{name}: {each['old']!r} in old, {each['new']!r} in new" for name, each in data["settings"].items()]
    return Result(exit=Exit.PASS, data=data, view=tuple(view), notes=notes_of(matched, "old", "new"))


def settings_changed(old: Report, new: Report) -> dict[str, dict[str, Any]]:
    """Settings, engines and datasets that are not the same; what neither report says is left out."""
    sides = [_told(report) for report in (old, new)]
    names = sorted({*sides[0], *sides[1]})
    pairs = {name: {"old": sides[0].get(name), "new": sides[1].get(name)} for name in names}
    return {name: pair for name, pair in pairs.items() if pair["old"] != pair["new"]}


def _told(report: Report) -> Mapping[str, Any]:
    setting: dict[str, Any] = dict(report.settings)
    for side in ("baseline", "target"):
        engine = getattr(report, side)
        if engine is not None:
            setting |= {f"{side} url": engine.url, f"{side} model": engine.model, f"{side} version": engine.version}
    if report.datasets:
        setting["dataset sha256"] = [dataset.sha256 for dataset in report.datasets]
    return setting


def _is_changed(one: Sample, other: Sample) -> bool:
    """Another status, another place of the first difference, or another answer of the target. Names of tokens are no
    answer: an engine may call the same pieces otherwise."""
    before, now = (
        (sample.status, sample.first_divergence, sample.differences, sample.target.ids) for sample in (one, other)
    )
    return before != now or bool(differences(one.target.said, other.target.said))


def _answers(one: Sample, other: Sample) -> dict[str, Any]:
    """Whole answers that differ, the parts of them that are no content marked, and in which parts they do."""
    answers: dict[str, Any] = {}
    for side in ("baseline", "target"):
        before, now = getattr(one, side).said, getattr(other, side).said
        apart = differences(before, now)
        if apart:
            answers[side] = {"old": str(before), "new": str(now)}
            answers[f"{side}_differences"] = msgspec.to_builtins(apart)
    return answers


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    """What changed in the target's answer, old and new."""
    apart = msgspec.convert(row.get("target_differences", []), list[Difference])
    if apart:
        yield f"target, old / new: {sentence(apart)}"


def _statuses(table: Counter[tuple[str, str]]) -> Table:
    """Old statuses down, new ones across."""
    present = [status for status in STATUSES if any(status in pair for pair in table)]
    shown = columns("old \\ new", *present)
    for before in present:
        shown.add_row(before, *(str(table[before, now]) for now in present))
    return shown
