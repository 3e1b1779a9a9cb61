"""batch-compare: a dataset on the baseline and on one or more targets; do they differ by more than the noise?"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
from rich.text import Text

from ppd_acc.ask.access import Access, Endpoint, Sampling
from ppd_acc.ask.question import Question
from ppd_acc.batch.options import Options as BatchOptions
from ppd_acc.batch.reports import dry_data, result_of
from ppd_acc.batch.run import Run, Work
from ppd_acc.batch.run_journal import read_journal
from ppd_acc.cli.batch.options import add_batch_flags, options_of
from ppd_acc.cli.flags import add_access_flags, add_sampling_flags, positive
from ppd_acc.cli.given import Given, url_of
from ppd_acc.cli.options import flags
from ppd_acc.data.datasets import Row, read_datasets, read_template
from ppd_acc.data.report import Dataset, Report
from ppd_acc.data.report_files import read_report
from ppd_acc.data.snapshots import Kept, Snapshot, answers_for, read_snapshot, rows_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted
from ppd_wire.requests.asking import BY_NAME


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`is_dry`: nobody is to be asked. `has_samples`: somebody reads the samples themselves."""

    work: Work
    options: BatchOptions
    is_dry: bool
    has_samples: bool
    notes: tuple[str, ...]


def comparison_of(given: Given) -> Comparison:
    """What the flags and the file ask for, of batch-compare and of snapshot compare. Raises Mistake."""
    path = given.path("snapshot")
    work = _work(given, read_snapshot(path) if path is not None else None)
    return Comparison(
        work=work,
        options=options_of(given),
        is_dry=bool(given.flag("dry_run")),
        has_samples=given.flag("json") is not None,
        notes=() if given.flag("logprob_gap_threshold") is None else (GAP_NOTE,),
    )


async def compare(comparison: Comparison, surroundings: Surroundings) -> Result:
    """Does it, or with --dry-run says what would be done."""
    work, options = comparison.work, comparison.options
    if comparison.is_dry:
        data = dry_data(work, options)
        line = (
            f"{counted(data['samples'], 'sample')}, {counted(data['requests'], 'request')} and more for answers that"
            " differ; nobody was asked"
        )
        return Result(exit=Exit.PASS, data={"dry_run": data}, view=(Text(line),), notes=comparison.notes)
    try:
        done = await Run(work, options, surroundings).conduct()
    except asyncio.CancelledError:
        if options.journal is not None:
            surroundings.errors.print(Text(_kept(options.journal)), soft_wrap=True)
        raise
    result = result_of(work, options, done, surroundings, has_samples=comparison.has_samples)
    return dataclasses.replace(result, notes=(*comparison.notes, *result.notes))


def _kept(path: Path) -> str:
    """What an interrupted run leaves in its journal."""
    journal = read_journal(path)
    if journal.rows:
        return f"finished samples in {path}: {len(journal.rows)}; the same line with --resume goes on"
    if journal.start is not None:
        return f"no sample is finished; the noise floor is in {path}, and the same line with --resume goes on"
    return "nothing is finished: the noise floor was still being measured"


GAP_NOTE = "--logprob-gap-threshold means nothing here: differences are classified by the noise floor"


def _work(given: Given, snapshot: Snapshot | None) -> Work:
    if snapshot is not None and given.flag("baseline") is not None:
        raise Mistake("--baseline and --snapshot: only one of them can be the baseline")
    template = template_of(given)
    datasets, rows = _rows(given, snapshot, template)
    selection = []
    if given.option("deduplicate", False, "batch"):
        kept = _unique(rows)
        selection.append(f"{counted(len(rows) - len(kept), 'duplicate')} left out")
        rows = kept
    merged: list[tuple[str, bytes]] = []
    rerun = given.flag("rerun")
    if rerun is not None:
        report = read_report(given.directory / rerun, "--rerun")
        rows = _divergent(rerun, report, rows)
        selection.append(f"what differs in {rerun}")
        if given.flag("rerun_merge"):
            merged = [(sample.sample_id, msgspec.json.encode(sample)) for sample in report.samples]
    elif given.flag("rerun_merge"):
        raise Mistake("--rerun-merge: into what? give --rerun REPORT")
    recalled: Mapping[str, Kept] = {}
    if snapshot is not None:
        recalled = answers_for(snapshot, rows, f"--snapshot {given.flag('snapshot')}")
        rows = as_kept(rows, snapshot)
    return Work(
        rows=rows,
        datasets=tuple(datasets),
        sampling=_sampling(given, snapshot),
        access=_access(given, snapshot),
        targets=_targets(given),
        baseline=given.needed("baseline") if snapshot is None else None,
        snapshot=snapshot,
        snapshot_name=str(given.flag("snapshot")) if snapshot is not None else "",
        recalled=recalled,
        template=template,
        selection=tuple(selection),
        merged=tuple(merged),
    )


def template_of(given: Given) -> str | None:
    """Raises Mistake for one that cannot be read."""
    path = given.path("template")
    return read_template(str(path)) if path is not None else None


def loaded_datasets(given: Given, template: str | None) -> tuple[Sequence[Dataset], tuple[Row, ...]] | None:
    """Of the flags, else the file; None where neither names one. Raises Mistake."""
    named = given.option("dataset", (), "batch")
    paths = [str(given.directory / path) for path in ([named] if isinstance(named, str) else named)]
    if not paths:
        return None
    loaded, rows = read_datasets(paths, template=template, limit=given.flag("limit"))
    return [each.described() for each in loaded], rows


def _rows(
    given: Given, snapshot: Snapshot | None, template: str | None
) -> tuple[Sequence[Dataset], tuple[Row, ...]]:  # fmt: skip
    loaded = loaded_datasets(given, template)
    if loaded is not None:
        return loaded
    if snapshot is None:
        raise Mistake("--dataset is missing; give a file with prompts")
    return snapshot.datasets, rows_of(snapshot)[: given.flag("limit")]


def _access(given: Given, snapshot: Snapshot | None) -> Access:
    """The file's [batch] has a concurrency of its own; a snapshot knows its endpoint."""
    access = given.access()
    concurrency = given.settings.get("batch", "concurrency")
    if given.flag("concurrency") is None and concurrency is not None:
        access = dataclasses.replace(access, concurrency=concurrency)
    if snapshot is not None and snapshot.endpoint is not None and given.flag("endpoint") is None:
        access = dataclasses.replace(access, endpoint=cast("Endpoint", snapshot.endpoint))
    return access


def _targets(given: Given) -> tuple[str, ...]:
    """Raises Mistake where there is none, or one twice."""
    if not given.flag("target"):
        return (given.needed("target"),)
    targets = tuple(url_of("--target", url) for url in given.flag("target"))
    if len(set(targets)) < len(targets):
        raise Mistake(f"--target {', '.join(targets)}: the same one twice")
    return targets


def _sampling(given: Given, snapshot: Snapshot | None) -> Sampling:
    """The snapshot's own sampling, where it tells. Raises Mistake for a flag that says something else."""
    sampling = given.sampling()
    if snapshot is None or not snapshot.sampling:
        return sampling
    for name, was in snapshot.sampling.items():
        wanted = given.flag(name)
        if wanted is not None and wanted != was and name != "profile":
            flag = "--" + name.replace("_", "-")
            raise Mistake(f"{flag} {wanted}: the snapshot was captured with {was}; leave the flag out")
    try:
        return msgspec.convert({**dataclasses.asdict(sampling), **snapshot.sampling, "profile": None}, Sampling)
    except msgspec.ValidationError as error:
        raise Mistake(f"--snapshot {given.flag('snapshot')}: sampling: {error}") from None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    comparison: Comparison = flags(_add_arguments, comparison_of)


async def run(options: Options, surroundings: Surroundings) -> Result:
    return await compare(options.comparison, surroundings)
