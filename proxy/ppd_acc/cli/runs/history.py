"""history save, list, trend, purge: runs over time."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ppd_acc.cli.flags import between, not_negative, positive
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags, switch, value
from ppd_acc.compare.decisions import worst
from ppd_acc.data.report import Status
from ppd_acc.data.report_files import report_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.reports.history import Run, default_path, opened
from ppd_acc.reports.trends import hits_of, judge
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted, percent
from ppd_accuracy.statistics.gates import Decision
from ppd_accuracy.statistics.significance import holm
from ppd_accuracy.verdicts.rows import STORAGES, Storage

Group = tuple[str, str, str]
"""Runs are compared within one dataset (by its SHA-256), model and tag."""
_DAY_S = 86_400
_SEED = 42
_BAD: tuple[tuple[str, tuple[Status, ...]], ...] = (
    ("real", ("real", "unclassified")),
    ("divergent", ("tie", "real", "unclassified")),
)


def _add_db(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--db", metavar="FILE", help=f"default {default_path({'HOME': '~'})}, or under $XDG_DATA_HOME")
    group.add_argument("--history-dir", metavar="DIR", help="history.db in this directory")


def _path(given: Given) -> Path:
    file, folder = given.flag("db"), given.flag("history_dir")
    if file is None and folder is None:
        return default_path(os.environ)
    return given.directory / (Path(folder) / "history.db" if file is None else file)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOptions:
    report: str = flag("--report", "--input", required=True, metavar="FILE", help="what batch-compare wrote")
    tag: str = flag(default="", metavar="T", help="runs are compared with those of the same tag")
    storage: Storage = flag(
        choices=[each for each in STORAGES if each != "none"], default="tokens",
        help="what is kept of samples, as in the proxy's journal (default tokens: no texts)",
    )  # fmt: skip
    db: Path = flags(_add_db, _path)


def run_save(options: SaveOptions, surroundings: Surroundings) -> Result:
    source = surroundings.directory / options.report
    try:
        body = source.read_bytes()
    except OSError as error:
        raise Mistake(f"--report {options.report}: {error.strerror or error}") from None
    report = report_of(body, f"--report {options.report}")
    with opened(options.db, is_made=True) as history:
        run, is_new = history.save(
            report, path=options.report, sha256=hashlib.sha256(body).hexdigest(), tag=options.tag,
            storage=options.storage, now=surroundings.wall_clock(),
        )  # fmt: skip
    notes = () if is_new else (f"this report is there already as run {run}; saved twice it would count twice",)
    what = f"run {run}: {counted(len(report.samples), 'sample')} {'saved in' if is_new else 'are in'} {options.db}"
    data = {"db": str(options.db), "run": run, "is_new": is_new, "samples": len(report.samples), "tag": options.tag}
    return Result(exit=Exit.PASS, data=data, view=(what,), notes=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    tag: str | None = value("T", "only runs of this tag")
    db: Path = flags(_add_db, _path)


def run_list(options: ListOptions, _: Surroundings) -> Result:
    with opened(options.db, is_made=False) as history:
        runs = history.runs(tag=options.tag)
    data = {"runs": [asdict(run) for run in runs]}
    return Result(exit=Exit.PASS, data=data, view=(_table(runs) if runs else "no runs",))


def _table(runs: Sequence[Run]) -> Table:
    table = Table("run", "at", "tag", "model", "dataset", "samples", "equal", "tie", "real", "unclassified", "error",
                  "empty", "divergence", "real rate")  # fmt: skip
    for run in runs:
        texts = (run.tag, run.model, f"{run.dataset} {run.dataset_sha256[:8]}".strip())
        names = ("samples", "equal", "tie", "real", "unclassified", "error", "empty")
        table.add_row(
            str(run.run), datetime.fromtimestamp(run.at, UTC).strftime("%Y-%m-%d %H:%M"), *map(Text, texts),
            *(str(run.totals.get(name, 0)) for name in names),
            *(percent(run.totals[name]) for name in ("rate", "real_rate")),
        )  # fmt: skip
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendOptions:
    tag: str | None = value("T", "only runs of this tag")
    last: int | None = value("N", "only the newest N runs of each kind (default all)", positive)
    metric: str = flag(choices=dict(_BAD), default="real", help="what counts: all but ties (default), or ties too")
    alpha: float = flag(type=between(1e-6, 0.5), default=0.05, metavar="A", help="level of the tests (default 0.05)")
    fail_on_regression: bool = switch("accepted; it always does")
    db: Path = flags(_add_db, _path)


def run_trend(options: TrendOptions, _: Surroundings) -> Result:
    """A group is runs of one dataset, model and tag; Holm over the groups. The worst group decides."""
    bad = dict(_BAD)[options.metric]
    with opened(options.db, is_made=False) as history:
        groups: dict[Group, list[Run]] = {}
        for run in history.runs(tag=options.tag):
            groups.setdefault(run.group, []).append(run)
        if not groups:
            raise Mistake("no runs to compare" + (f" with --tag {options.tag}" if options.tag is not None else ""))
        kept = {group: runs[-options.last :] if options.last else runs for group, runs in groups.items()}
        hits = {run.run: hits_of(history.statuses(run.run), bad) for runs in kept.values() for run in runs}
    judged = _judged({group: [hits[run.run] for run in runs] for group, runs in kept.items()}, options.alpha)
    view: list[Any] = []
    groups_data = []
    for group, decision in judged.items():
        runs = kept[group]
        view += [_table(runs), f"{decision.outcome}: {decision.reason}"]
        names = dict(zip(("dataset_sha256", "model", "tag"), group, strict=True))
        groups_data.append({**names, "runs": [asdict(run) for run in runs], "decision": asdict(decision)})
    data = {"metric": options.metric, "alpha": options.alpha, "groups": groups_data}
    return Result(exit=worst(each.outcome for each in judged.values()), data=data, view=tuple(view))


def _judged(hits: Mapping[Group, Sequence[Mapping[str, bool]]], alpha: float) -> dict[Group, Decision]:
    """Several groups are several chances of a false alarm: each is judged again at the level that Holm leaves it."""

    def at(group: Group, level: float) -> Decision:
        *earlier, latest = hits[group]
        return judge(earlier, latest, level, _SEED)

    judged = {group: at(group, alpha) for group in hits}
    raw = {group: decision.p for group, decision in judged.items() if decision.p is not None}
    for (group, p), adjusted in zip(raw.items(), holm([*raw.values()]), strict=True):
        if p <= alpha < adjusted:
            judged[group] = at(group, alpha * p / adjusted)
    return judged


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeOptions:
    older_than: float = flag(type=between(0, 1e6), required=True, metavar="DAYS", help="remove runs that are older")
    keep_last: int = flag(type=not_negative, default=0, metavar="N", help="but never the newest N")
    dry_run: bool = switch("only say which")
    db: Path = flags(_add_db, _path)


def run_purge(options: PurgeOptions, surroundings: Surroundings) -> Result:
    with opened(options.db, is_made=False) as history:
        runs = history.runs()
        newest = {run.run for run in runs[len(runs) - min(options.keep_last, len(runs)) :]}
        oldest_at = surroundings.wall_clock() - options.older_than * _DAY_S
        gone = [run for run in runs if run.at < oldest_at and run.run not in newest]
        if not options.dry_run:
            history.delete([run.run for run in gone])
    word = "would remove" if options.dry_run else "removed"
    what = f"{word} {len(gone)} of {len(runs)} runs"
    data = {"is_dry_run": options.dry_run, "removed": [asdict(run) for run in gone], "kept": len(runs) - len(gone)}
    return Result(exit=Exit.PASS, data=data, view=(_table(gone), what) if gone else (what,))
