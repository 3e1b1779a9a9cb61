"""snapshot capture, compare and show: a baseline's answers, kept, and targets held against them later."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.text import Text

from ppd_acc.ask.access import Terms
from ppd_acc.ask.engines import EngineTrouble, engines
from ppd_acc.batch.batch import Asked, Pace, Source
from ppd_acc.batch.options import NOISE_ANSWERS
from ppd_acc.batch.run import floor_of_rows, info_of
from ppd_acc.cli.batch.batch_compare import Comparison, compare, comparison_of, loaded_datasets, template_of
from ppd_acc.cli.batch.options import add_batch_flags
from ppd_acc.cli.flags import add_access_flags, add_noise_flag, add_sampling_flags, between, positive, terms_of
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags
from ppd_acc.compare.compare import noise_of
from ppd_acc.data.datasets import Row
from ppd_acc.data.report import Dataset
from ppd_acc.data.snapshots import Kept, Snapshot, encoded, kept, read_snapshot
from ppd_acc.files import write_whole
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress, counted, noise_line
from ppd_accuracy.answers.flips import ReplayNoise

_SHOWN = 10


def _add_capture(parser: argparse.ArgumentParser) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Capture:
    output: Path
    url: str
    datasets: Sequence[Dataset]
    rows: tuple[Row, ...]
    terms: Terms
    per_s: float | None
    has_progress: bool


def _capture(given: Given) -> _Capture:
    output = given.directory / given.flag("output")
    if not output.absolute().parent.is_dir():
        raise Mistake(f"--output {output}: there is no directory {output.parent}")
    loaded = loaded_datasets(given, template_of(given))
    if loaded is None:
        raise Mistake("--dataset is missing; give a file with prompts")
    datasets, rows = loaded
    return _Capture(
        output=output,
        datasets=datasets,
        rows=rows,
        terms=terms_of(NOISE_ANSWERS, given),
        per_s=given.option("rate_limit"),
        has_progress=not given.flag("no_progress") and not given.flag("quiet"),
        url=given.needed("baseline"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    capture: _Capture = flags(_add_capture, _capture)


async def run_capture(options: CaptureOptions, surroundings: Surroundings) -> Result:
    asked = options.capture
    rows, access, sampling = asked.rows, asked.terms.access, asked.terms.sampling

    def progress(what: str, count: int) -> Progress | None:
        return Progress(surroundings.errors, what, count) if asked.has_progress else None

    async with engines(access, asked.url, sides=("baseline",)) as (engine,):
        info = await info_of(engine)
        count = asked.terms.noise_answers
        floor = await floor_of_rows(rows, engine, sampling, count, progress("noise floor", count))
        pace = Pace(asked.per_s) if asked.per_s is not None else None
        source = Asked(engine, access, sampling, side="snapshot", pace=pace)
        samples = await _answers(source, rows, access.concurrency, progress("snapshot", len(rows)))
    snapshot = Snapshot(
        tool=f"ppd-acc {version('ppd-proxy')}",
        captured_at=surroundings.wall_clock(),
        baseline=info,
        endpoint=access.endpoint,
        sampling=dataclasses.asdict(sampling),
        datasets=list(asked.datasets),
        noise=list(floor.measured),
        samples=samples,
    )
    write_whole(asked.output, [encoded(snapshot)], "--output")
    failed = [each for each in samples if each.error is not None]
    view = [*_described(snapshot, floor), f"snapshot: {asked.output}"]
    view += [f"  {each.sample_id!r} error: {each.error}" for each in failed[:_SHOWN]]
    code = Exit.INFRASTRUCTURE if failed else Exit.PASS
    data = {**_data(snapshot), "noise": noise_of(floor), "path": str(asked.output)}
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


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--snapshot", metavar="FILE", required=True, help="what snapshot capture wrote")
    parser.add_argument("--target", action="append", metavar="URL", help="what is held against it, repeatable")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N samples")
    add_sampling_flags(parser)
    add_access_flags(parser, has_target=True)
    add_batch_flags(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    comparison: Comparison = flags(_add_compare, comparison_of)


async def run_compare(options: CompareOptions, surroundings: Surroundings) -> Result:
    return await compare(options.comparison, surroundings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowOptions:
    snapshot: Snapshot = flag(
        required=True, metavar="FILE", help="what snapshot capture wrote",
        read=lambda given: read_snapshot(given.directory / given.flag("snapshot")),
    )  # fmt: skip


def run_show(options: ShowOptions, surroundings: Surroundings) -> Result:
    snapshot = options.snapshot
    lines = list(_described(snapshot, snapshot.floor))
    for each in snapshot.samples[:_SHOWN]:
        answer = repr(str(each.answer.said)[:80]) if each.answer is not None else f"error: {each.error}"
        lines.append(f"  {each.sample_id!r}: {answer}")
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
