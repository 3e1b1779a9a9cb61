"""history save, list, trend, purge: runs over time."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import between, not_negative, positive
from ppd_acc.data.report import Status, report_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.reports.history import Run, default_path, opened
from ppd_acc.reports.trends import hits_of, judge
from ppd_acc.views import counted, percent
from ppd_accuracy.statistics.gates import Decision
from ppd_accuracy.statistics.significance import holm
from ppd_accuracy.verdicts.rows import STORAGES, Storage

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


def _path(args: argparse.Namespace, context: Context) -> Path:
    file: str | None = args.db
    directory: str | None = args.history_dir
    if file is not None:
        return context.directory / file
    if directory is not None:
        return context.directory / directory / "history.db"
    return default_path(os.environ)


def add_save_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", "--input", required=True, metavar="FILE", help="what batch-compare wrote")
    parser.add_argument("--tag", default="", metavar="T", help="runs are compared with those of the same tag")
    parser.add_argument(
        "--storage", choices=[each for each in STORAGES if each != "none"], default="tokens",
        help="what is kept of samples, as in the proxy's journal (default tokens: no texts)",
    )  # fmt: skip
    _add_db(parser)


def save(args: argparse.Namespace, context: Context) -> Result:
    source = context.directory / args.report
    try:
        body = source.read_bytes()
    except OSError as error:
        raise Mistake(f"--report {args.report}: {error.strerror or error}") from None
    report = report_of(body, f"--report {args.report}")
    path = _path(args, context)
    with opened(path, is_made=True) as history:
        run, is_new = history.save(
            report,
            path=str(args.report),
            sha256=hashlib.sha256(body).hexdigest(),
            tag=args.tag,
            storage=cast("Storage", args.storage),
            now=context.wall_clock(),
        )
    notes = () if is_new else (f"this report is there already as run {run}; saved twice it would count twice",)
    told = f"run {run}: {counted(len(report.samples), 'sample')} {'saved in' if is_new else 'are in'} {path}"
    data = {"db": str(path), "run": run, "is_new": is_new, "samples": len(report.samples), "tag": args.tag}
    return Result(exit=Exit.PASS, data=data, view=(Text(told),), notes=notes)


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tag", metavar="T", help="only runs of this tag")
    _add_db(parser)


def list_runs(args: argparse.Namespace, context: Context) -> Result:
    with opened(_path(args, context), is_made=False) as history:
        runs = history.runs(tag=args.tag)
    data = {"runs": [_plain(run) for run in runs]}
    return Result(exit=Exit.PASS, data=data, view=(_table(runs) if runs else Text("no runs"),))


def _plain(run: Run) -> dict[str, Any]:
    return asdict(run)


def _table(runs: Sequence[Run]) -> Table:
    table = Table("run", "at", "tag", "model", "dataset", "samples", "equal", "tie", "real", "unclassified", "error",
                  "empty", "divergence", "real rate")  # fmt: skip
    for run in runs:
        totals = run.totals
        names = ("samples", "equal", "tie", "real", "unclassified", "error", "empty")
        counts = (str(totals.get(name, 0)) for name in names)
        table.add_row(
            str(run.run),
            datetime.fromtimestamp(run.at, UTC).strftime("%Y-%m-%d %H:%M"),
            Text(run.tag),
            Text(run.model),
            Text(f"{run.dataset} {run.dataset_sha256[:8]}".strip()),
            *counts,
            percent(totals["rate"]),
            percent(totals["real_rate"]),
        )
    return table


def add_trend_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tag", metavar="T", help="only runs of this tag")
    parser.add_argument("--last", type=positive, metavar="N", help="only the newest N runs of each kind (default all)")
    parser.add_argument(
        "--metric", choices=dict(_BAD), default="real", help="what counts: all but ties (default), or ties too"
    )
    parser.add_argument(
        "--alpha", type=between(1e-6, 0.5), default=0.05, metavar="A", help="level of the tests (default 0.05)"
    )
    parser.add_argument("--fail-on-regression", action="store_true", help="accepted; it always does")
    _add_db(parser)


def trend(args: argparse.Namespace, context: Context) -> Result:
    """A group is runs of one dataset, model and tag; Holm over the groups. The worst group decides."""
    bad = dict(_BAD)[args.metric]
    with opened(_path(args, context), is_made=False) as history:
        groups: dict[tuple[str, str, str], list[Run]] = {}
        for run in history.runs(tag=args.tag):
            groups.setdefault(run.group, []).append(run)
        if not groups:
            raise Mistake("no runs to compare" + (f" with --tag {args.tag}" if args.tag is not None else ""))
        kept = {group: runs[-args.last :] if args.last else runs for group, runs in groups.items()}
        hits = {run.run: hits_of(history.statuses(run.run), bad) for runs in kept.values() for run in runs}
    found = {
        group: judge([hits[run.run] for run in runs[:-1]], hits[runs[-1].run], args.alpha, _SEED)
        for group, runs in kept.items()
    }
    judged = _adjusted(found, kept, hits, args.alpha)
    outcomes = [decision.outcome for decision in judged.values()]
    code = (
        Exit.DIFFERENT
        if "fail" in outcomes
        else Exit.INCONCLUSIVE if "inconclusive" in outcomes else Exit.PASS
    )  # fmt: skip
    view: list[Any] = []
    groups_data = []
    for group, decision in judged.items():
        runs = kept[group]
        view += [_table(runs), Text(f"{decision.outcome}: {decision.reason}")]
        names = dict(zip(("dataset_sha256", "model", "tag"), group, strict=True))
        groups_data.append({**names, "runs": [_plain(run) for run in runs], "decision": asdict(decision)})
    data = {"metric": args.metric, "alpha": args.alpha, "groups": groups_data}
    return Result(exit=code, data=data, view=tuple(view))


def _adjusted(
    found: Mapping[tuple[str, str, str], Decision],
    kept: Mapping[tuple[str, str, str], Sequence[Run]],
    hits: Mapping[int, Mapping[str, bool]],
    alpha: float,
) -> dict[tuple[str, str, str], Decision]:
    """Several groups are several chances of a false alarm: each is judged again at the level that Holm leaves it."""
    tested = [group for group, decision in found.items() if decision.p is not None]
    adjusted = holm([found[group].p or 0.0 for group in tested])
    judged = dict(found)
    for group, p in zip(tested, adjusted, strict=True):
        decision = found[group]
        raw = decision.p or 0.0
        if raw <= alpha < p:
            runs = kept[group]
            again = judge([hits[run.run] for run in runs[:-1]], hits[runs[-1].run], alpha * raw / p, _SEED)
            judged[group] = again
    return judged


def add_purge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", type=between(0, 1e6), required=True, metavar="DAYS", help="remove runs that are older"
    )
    parser.add_argument("--keep-last", type=not_negative, default=0, metavar="N", help="but never the newest N")
    parser.add_argument("--dry-run", action="store_true", help="only say which")
    _add_db(parser)


def purge(args: argparse.Namespace, context: Context) -> Result:
    with opened(_path(args, context), is_made=False) as history:
        runs = history.runs()
        newest = {run.run for run in runs[len(runs) - min(args.keep_last, len(runs)) :]}
        oldest_at = context.wall_clock() - args.older_than * _DAY_S
        gone = [run for run in runs if run.at < oldest_at and run.run not in newest]
        if not args.dry_run:
            history.delete([run.run for run in gone])
    word = "would remove" if args.dry_run else "removed"
    told = Text(f"{word} {len(gone)} of {len(runs)} runs")
    data = {"is_dry_run": args.dry_run, "removed": [_plain(run) for run in gone], "kept": len(runs) - len(gone)}
    return Result(exit=Exit.PASS, data=data, view=(_table(gone), told) if gone else (told,))


COMMANDS = (
    Command(name="history save", add_arguments=add_save_arguments, run=save),
    Command(name="history list", add_arguments=add_list_arguments, run=list_runs),
    Command(name="history trend", add_arguments=add_trend_arguments, run=trend),
    Command(name="history purge", add_arguments=add_purge_arguments, run=purge),
)
