"""snapshot capture, compare and show: a baseline's answers, kept, and targets held against them later."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from rich.text import Text

from ppd_acc.ask.engines import EngineTrouble, engines
from ppd_acc.batch.batch import Asked, Pace, Source
from ppd_acc.batch.options import NOISE_ANSWERS
from ppd_acc.batch.runs import floor_of_rows, info_of
from ppd_acc.cli.batch import batch_compare
from ppd_acc.cli.batch.options import add_batch_flags, options_of
from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import (
    access_of,
    add_access_flags,
    add_noise_flag,
    add_sampling_flags,
    between,
    needed,
    option,
    positive,
    sampling_of,
)
from ppd_acc.compare.compare import noise_of
from ppd_acc.data.datasets import Row, read_datasets, read_template
from ppd_acc.data.snapshots import Kept, Snapshot, encoded, kept, read_snapshot
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.views import Progress, counted, noise_line
from ppd_accuracy.answers.flips import ReplayNoise

_SHOWN = 10


def add_capture_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--baseline", metavar="URL", help="the engine whose answers are kept")
    parser.add_argument("--dataset", action="append", metavar="FILE", help="prompts; repeatable")
    parser.add_argument("--output", metavar="FILE", required=True, help="the snapshot")
    parser.add_argument("--template", metavar="FILE", help="makes prompts: {field} is a row's field")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N rows of each dataset")
    parser.add_argument("--rate-limit", type=between(1e-9, 1e9), metavar="N", help="requests per second")
    parser.add_argument("--no-progress", action="store_true", help="say nothing while it runs")
    add_sampling_flags(parser)
    add_access_flags(parser)
    add_noise_flag(parser, NOISE_ANSWERS)


async def capture(args: argparse.Namespace, context: Context) -> Result:
    settings = context.settings
    output = context.directory / args.output
    if not output.absolute().parent.is_dir():
        raise Mistake(f"--output {output}: there is no directory {output.parent}")
    template = read_template(str(context.directory / args.template)) if args.template is not None else None
    named = option(args, settings, "dataset", None, "batch") or ()
    paths = [named] if isinstance(named, str) else list(named)
    if not paths:
        raise Mistake("--dataset is missing; give a file with prompts")
    loaded, rows = read_datasets([str(context.directory / path) for path in paths], template=template, limit=args.limit)
    sampling, access = sampling_of(args, settings), access_of(args, settings)
    per_s = option(args, settings, "rate_limit")
    has_progress = not args.no_progress and not getattr(args, "quiet", False)
    async with engines(access, needed(args, settings, "baseline"), sides=("baseline",)) as (engine,):
        info = await info_of(engine)
        count = option(args, settings, "noise_floor", NOISE_ANSWERS)
        floor = await floor_of_rows(rows, engine, sampling, count, context, has_progress=has_progress)
        source = Asked(
            engine, access, sampling, side="snapshot", pace=Pace(per_s) if per_s is not None else None
        )  # fmt: skip
        progress = Progress(context.errors, "snapshot", len(rows)) if has_progress else None
        samples = await _answers(source, rows, access.concurrency, progress)
    snapshot = Snapshot(
        tool=f"ppd-acc {version('ppd-proxy')}",
        captured_at=context.wall_clock(),
        baseline=info,
        endpoint=access.endpoint,
        sampling=dataclasses.asdict(sampling),
        datasets=[each.described() for each in loaded],
        noise=list(floor.measured),
        samples=samples,
    )
    write_whole(output, [encoded(snapshot)], "--output")
    failed = [each for each in samples if each.error is not None]
    view = [*_described(snapshot, floor), f"snapshot: {output}"]
    view += [f"  {each.sample_id!r} error: {each.error}" for each in failed[:_SHOWN]]
    code = Exit.INFRASTRUCTURE if failed else Exit.PASS
    data = {**_data(snapshot), "noise": noise_of(floor), "path": str(output)}
    return Result(exit=code, data=data, view=tuple(map(Text, view)))


async def _answers(source: Source, rows: Sequence[Row], at_once: int, progress: Progress | None) -> list[Kept]:
    found: list[Kept | None] = [None] * len(rows)
    missing = iter(range(len(rows)))
    done = 0

    async def work() -> None:
        nonlocal done
        for number in missing:
            row = rows[number]
            try:
                found[number] = kept(row, await source.answer(number, row))
            except EngineTrouble as trouble:
                found[number] = kept(row, None, str(trouble), trouble.reason)
            done += 1
            if progress is not None:
                progress(done)

    await asyncio.gather(*(work() for _ in range(min(at_once, len(rows)))))
    return [each for each in found if each is not None]


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--snapshot", metavar="FILE", required=True, help="what snapshot capture wrote")
    parser.add_argument("--target", action="append", metavar="URL", help="what is held against it, repeatable")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N samples")
    parser.set_defaults(baseline=None, dataset=None, template=None, deduplicate=None, rerun=None)
    parser.set_defaults(rerun_merge=False, dry_run=False)
    add_sampling_flags(parser)
    add_access_flags(parser, has_target=True)
    add_batch_flags(parser)


async def compare(args: argparse.Namespace, context: Context) -> Result:
    snapshot = read_snapshot(context.directory / args.snapshot)
    work = batch_compare.work_of(args, context, snapshot)
    return await batch_compare.run_work(args, context, work, options_of(args, context))


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--snapshot", metavar="FILE", required=True, help="what snapshot capture wrote")


def show(args: argparse.Namespace, context: Context) -> Result:
    snapshot = read_snapshot(context.directory / args.snapshot)
    lines = list(_described(snapshot, snapshot.floor))
    for each in snapshot.samples[:_SHOWN]:
        told = repr(str(each.answer.said)[:80]) if each.answer is not None else f"error: {each.error}"
        lines.append(f"  {each.sample_id!r}: {told}")
    if len(snapshot.samples) > _SHOWN:
        lines.append(f"  and {len(snapshot.samples) - _SHOWN} more")
    return Result(exit=Exit.PASS, data=_data(snapshot), view=tuple(map(Text, lines)))


def _described(snapshot: Snapshot, floor: ReplayNoise) -> Iterator[str]:
    info = snapshot.baseline
    failed = sum(each.answer is None for each in snapshot.samples)
    engine = f"{info.url}, model {info.model}" if info is not None else "an unknown engine"
    yield f"{counted(len(snapshot.samples), 'sample')} of {engine}, {counted(failed, 'error')}"
    if snapshot.sampling:
        yield "sampling: " + ", ".join(f"{name} {value}" for name, value in snapshot.sampling.items())
    for each in snapshot.datasets:
        yield f"dataset {each.path}: {counted(each.samples, 'prompt')}, SHA-256 {each.sha256}"
    yield noise_line(floor)


def _data(snapshot: Snapshot) -> dict[str, object]:
    """Without answers: those are in the file."""
    return {
        "tool": snapshot.tool,
        "captured_at": snapshot.captured_at,
        "baseline": snapshot.baseline,
        "endpoint": snapshot.endpoint,
        "sampling": snapshot.sampling,
        "datasets": snapshot.datasets,
        "noise": noise_of(snapshot.floor),
        "samples": len(snapshot.samples),
        "errors": [each.sample_id for each in snapshot.samples if each.answer is None],
        "imported_from": snapshot.imported_from,
    }


COMMANDS = (
    Command(name="snapshot capture", add_arguments=add_capture_arguments, run=capture),
    Command(name="snapshot compare", add_arguments=add_compare_arguments, run=compare),
    Command(name="snapshot show", add_arguments=add_show_arguments, run=show),
)
