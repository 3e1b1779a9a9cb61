"""batch-compare: a dataset on the baseline and on one or more targets; do they differ by more than the noise?"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.engines import Question
from ppd_acc.batch.options import Options
from ppd_acc.batch.reports import dry_data, result_of
from ppd_acc.batch.run_journal import read_journal
from ppd_acc.batch.runs import Work, conduct
from ppd_acc.cli.batch.options import add_batch_flags, options_of
from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import (
    access_of,
    add_access_flags,
    add_sampling_flags,
    needed,
    option,
    positive,
    sampling_of,
)
from ppd_acc.cli.given import url_of
from ppd_acc.data.datasets import Row, read_datasets, read_template
from ppd_acc.data.report import Report, read_report
from ppd_acc.data.snapshots import Kept, Snapshot, answers_for, read_snapshot, rows_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.views import counted
from ppd_wire.requests.asking import BY_NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--baseline", metavar="URL", help="the unsplit engine")
    parser.add_argument("--snapshot", metavar="FILE", help="instead of asking a baseline: its answers, kept")
    parser.add_argument("--target", action="append", metavar="URL", help="what is held against it, repeatable")
    parser.add_argument(
        "--dataset", action="append", metavar="FILE",
        help="prompts: lines of JSON, a .json array or a .csv with a header; repeatable; a snapshot has its own",
    )  # fmt: skip
    parser.add_argument("--template", metavar="FILE", help="makes prompts: {field} is a row's field")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N rows of each dataset")
    parser.add_argument("--deduplicate", action="store_true", default=None, help="leave out what is asked already")
    parser.add_argument("--rerun", metavar="REPORT", help="only the samples that differ or are errors in this report")
    parser.add_argument("--rerun-merge", action="store_true", help="and put them into that report's other samples")
    parser.add_argument("--dry-run", action="store_true", help="check everything, ask nobody")
    add_sampling_flags(parser)
    add_access_flags(parser, has_target=True)
    add_batch_flags(parser)


async def run(args: argparse.Namespace, context: Context) -> Result:
    snapshot = read_snapshot(context.directory / args.snapshot) if args.snapshot is not None else None
    work = work_of(args, context, snapshot)
    options = options_of(args, context)
    return await run_work(args, context, work, options)


async def run_work(args: argparse.Namespace, context: Context, work: Work, options: Options) -> Result:
    """Does it, or with --dry-run says what would be done."""
    notes = [] if args.logprob_gap_threshold is None else [GAP_NOTE]
    if getattr(args, "dry_run", False):
        data = dry_data(work, options)
        told = (
            f"{counted(data['samples'], 'sample')}, {counted(data['requests'], 'request')} and more for answers that"
            " differ; nobody was asked"
        )
        return Result(exit=Exit.PASS, data={"dry_run": data}, view=(Text(told),), notes=tuple(notes))
    try:
        done = await conduct(work, options, context)
    except asyncio.CancelledError:
        if options.journal is not None:
            context.errors.print(Text(_kept(options.journal)), soft_wrap=True)
        raise
    # Samples are for --json only; whoever has no such option wants all.
    has_samples = getattr(args, "json", "-") is not None
    result = result_of(work, options, done, context, has_samples=has_samples)
    return dataclasses.replace(result, notes=(*notes, *result.notes))


def _kept(path: Path) -> str:
    """What an interrupted run leaves in its journal."""
    found = read_journal(path)
    if found.rows:
        return f"finished samples in {path}: {len(found.rows)}; the same line with --resume goes on"
    if found.start is not None:
        return f"no sample is finished; the noise floor is in {path}, and the same line with --resume goes on"
    return "nothing is finished: the noise floor was still being measured"


GAP_NOTE = "--logprob-gap-threshold means nothing here: differences are classified by the noise floor"


def work_of(args: argparse.Namespace, context: Context, snapshot: Snapshot | None) -> Work:
    """What the flags and the file ask for. Raises Mistake."""
    settings = context.settings
    if snapshot is not None and args.baseline is not None:
        raise Mistake("--baseline and --snapshot: only one of them can be the baseline")
    if args.concurrency is None:
        args.concurrency = settings.get("batch", "concurrency")
    if snapshot is not None and snapshot.endpoint is not None and args.endpoint is None:
        args.endpoint = snapshot.endpoint
    template = read_template(str(context.directory / args.template)) if args.template is not None else None
    datasets, rows = _rows(args, context, snapshot, template)
    selection = []
    if option(args, settings, "deduplicate", False, "batch"):
        kept = _unique(rows)
        selection.append(f"{counted(len(rows) - len(kept), 'duplicate')} left out")
        rows = kept
    merged: list[tuple[str, bytes]] = []
    if args.rerun is not None:
        report = read_report(context.directory / args.rerun, "--rerun")
        rows = _divergent(args.rerun, report, rows)
        selection.append(f"what differs in {args.rerun}")
        if args.rerun_merge:
            merged = [(sample.sample_id, msgspec.json.encode(sample)) for sample in report.samples]
    elif args.rerun_merge:
        raise Mistake("--rerun-merge: into what? give --rerun REPORT")
    recalled: Mapping[str, Kept] = {}
    if snapshot is not None:
        recalled = answers_for(snapshot, rows, f"--snapshot {args.snapshot}")
        rows = as_kept(rows, snapshot)
    return Work(
        rows=rows,
        datasets=tuple(datasets),
        sampling=sampling_with(args, context, snapshot),
        access=access_of(args, settings),
        targets=targets_of(args, context),
        baseline=needed(args, settings, "baseline") if snapshot is None else None,
        snapshot=snapshot,
        snapshot_name=str(args.snapshot) if snapshot is not None else "",
        recalled=recalled,
        template=template,
        selection=tuple(selection),
        merged=tuple(merged),
    )


def _rows(
    args: argparse.Namespace, context: Context, snapshot: Snapshot | None, template: str | None
) -> tuple[Sequence[Any], tuple[Row, ...]]:  # fmt: skip
    paths = args.dataset or _listed(option(args, context.settings, "dataset", None, "batch"))
    if paths:
        loaded, rows = read_datasets(
            [str(context.directory / path) for path in paths], template=template, limit=args.limit
        )  # fmt: skip
        return [each.described() for each in loaded], rows
    if snapshot is None:
        raise Mistake("--dataset is missing; give a file with prompts")
    return snapshot.datasets, rows_of(snapshot)[: args.limit]


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def targets_of(args: argparse.Namespace, context: Context) -> tuple[str, ...]:
    """Raises Mistake where there is none, or one twice."""
    if not args.target:
        args.target = None
        return (needed(args, context.settings, "target"),)
    targets = tuple(url_of("--target", url) for url in args.target)
    if len(set(targets)) < len(targets):
        raise Mistake(f"--target {', '.join(targets)}: the same one twice")
    return targets


def sampling_with(args: argparse.Namespace, context: Context, snapshot: Snapshot | None) -> Sampling:
    """The snapshot's own sampling, where it tells. Raises Mistake for a flag that says something else."""
    sampling = sampling_of(args, context.settings)
    if snapshot is None or not snapshot.sampling:
        return sampling
    for name, was in snapshot.sampling.items():
        given = getattr(args, name, None)
        if given is not None and given != was and name != "profile":
            flag = "--" + name.replace("_", "-")
            raise Mistake(f"{flag} {given}: the snapshot was captured with {was}; leave the flag out")
    try:
        return msgspec.convert({**dataclasses.asdict(sampling), **snapshot.sampling, "profile": None}, Sampling)
    except msgspec.ValidationError as error:
        raise Mistake(f"--snapshot {args.snapshot}: sampling: {error}") from None


def as_kept(rows: Sequence[Row], snapshot: Snapshot) -> tuple[Row, ...]:
    """Where the snapshot has tokens by name, targets are asked for names, too."""
    if not snapshot.has_names:
        return tuple(rows)

    def asking(question: Question) -> Question:
        return dataclasses.replace(question, extra={**(question.extra or {}), **BY_NAME})

    return tuple(dataclasses.replace(row, question=asking(row.question)) for row in rows)


def _unique(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows that ask something new. Duplicates are no further evidence, so they are not counted."""
    seen: set[bytes] = set()
    kept = []
    for row in rows:
        key = msgspec.json.encode([row.question.messages, row.question.prompt, row.question.extra], order="sorted")
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return tuple(kept)


def _divergent(path: str, report: Report, rows: Sequence[Row]) -> tuple[Row, ...]:
    wanted = {sample.sample_id for sample in report.samples if sample.status != "equal"}
    if not wanted:
        raise Mistake(f"--rerun {path}: all of its samples are equal; there is nothing to ask again")
    found = tuple(row for row in rows if row.sample_id in wanted)
    if not found:
        raise Mistake(f"--rerun {path}: none of its {len(wanted)} samples that differ is in the dataset")
    return found


COMMANDS = (Command(name="batch-compare", add_arguments=add_arguments, run=run),)
