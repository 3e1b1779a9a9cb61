"""A whole run: who the engines are, the noise floor, the samples, and the journal that lets it go on."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.cache import Cache
from ppd_acc.ask.engines import Engine, engines
from ppd_acc.batch.batch import Asked, Batch, Pace, Recalled, Rules, Source
from ppd_acc.batch.gating import Gate, stopping
from ppd_acc.batch.options import Options
from ppd_acc.batch.run_journal import Found, RunJournal
from ppd_acc.compare.compare import noise_floor
from ppd_acc.data.datasets import Row
from ppd_acc.data.report import Dataset, EngineInfo, Status
from ppd_acc.data.snapshots import Kept, Snapshot
from ppd_acc.outcome import Mistake
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress
from ppd_accuracy.answers.flips import Measured, ReplayNoise, replay_noise_of

_AHEAD = 2
"""Samples begun per request that an engine takes at once: while one engine is behind, the others have work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is compared. The baseline is an engine (`baseline`) or a snapshot, which is called `snapshot_name`."""

    rows: tuple[Row, ...]
    datasets: tuple[Dataset, ...]
    sampling: Sampling
    access: Access
    targets: tuple[str, ...]
    baseline: str | None = None
    snapshot: Snapshot | None = None
    snapshot_name: str = ""
    recalled: Mapping[str, Kept] = field(default_factory=dict)
    """The snapshot's samples by id."""
    template: str | None = None
    selection: tuple[str, ...] = ()
    """What made a choice among the dataset's rows, in words."""
    merged: tuple[tuple[str, bytes], ...] = ()
    """Ids and encoded samples of an earlier report that this run's samples are put into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of it. `finished` has each row's encoded samples, one per target, or None where the run stopped before;
    `stopped` the gates that a sequential test decided; `recalled` rows were in the journal already."""

    baseline: EngineInfo
    targets: tuple[EngineInfo, ...]
    floor: ReplayNoise
    finished: tuple[tuple[bytes, ...] | None, ...]
    stopped: tuple[Gate | None, ...]
    recalled: int
    retries: int
    cache: Cache | None


class _Start(msgspec.Struct, kw_only=True):
    """What a run found out before its first sample."""

    engines: list[EngineInfo]
    measured: list[Measured]
    failed: int = 0
    failure: str | None = None


def settings_of(work: Work, options: Options) -> dict[str, Any]:
    """All that decides what is asked and how a sample is judged; runs that differ here are not mixed."""
    access = work.access
    headers = sorted((name.lower(), value) for name, value in access.headers.items())
    return {
        "baseline": work.baseline,
        "snapshot": work.snapshot_name or None,
        "captured_at": None if work.snapshot is None else work.snapshot.captured_at,
        "targets": list(work.targets),
        "model": access.model,
        "endpoint": access.endpoint,
        "headers_sha256": hashlib.sha256(msgspec.json.encode(headers)).hexdigest() if headers else None,
        "sampling": dataclasses.asdict(work.sampling),
        "datasets": [{"path": each.path, "sha256": each.sha256, "samples": each.samples} for each in work.datasets],
        "samples": len(work.rows),
        "selection": list(work.selection),
        "template": work.template,
        "noise_floor": options.noise_answers,
        "matching": list(options.matching.names),
        "force": options.is_forced,
        "keep_tops": options.tops,
    }


async def conduct(work: Work, options: Options, context: Surroundings) -> Done:
    """Raises Mistake for a journal of another run, EngineTrouble where an engine cannot even tell its model (then no
    journal is begun), Trouble where the disk fails."""
    urls = (() if work.baseline is None else (work.baseline,)) + work.targets
    sides = ["baseline"] * (work.baseline is not None) + ["target"] * len(work.targets)
    async with engines(work.access, *urls, sides=sides) as opened:
        infos = await asyncio.gather(*(info_of(each) for each in opened))
        async with _journal(work, options) as (journal, found):
            baseline = opened[0] if work.baseline is not None else None
            floor = await _floor(work, options, context, baseline, infos, journal, found)
            floor = floor.of_run(len(work.rows))
            return await _sampled(work, options, context, opened, infos, floor, journal, found)


async def _sampled(
    work: Work, options: Options, context: Surroundings, opened: Sequence[Engine], infos: Sequence[EngineInfo],
    floor: ReplayNoise, journal: RunJournal | None, found: Found,
) -> Done:  # fmt: skip
    """The samples that are missing."""
    baseline = opened[0] if work.baseline is not None else None
    targets = opened[len(opened) - len(work.targets) :]
    cache = None
    if options.cache_dir is not None:
        cache = Cache(options.cache_dir, options.cache_ttl_s, context.wall_clock)
    rules = Rules(
        sampling=work.sampling, floor=floor, matching=options.matching, tops=options.tops,
        forcing=baseline if options.is_forced else None,
    )  # fmt: skip
    sources = [_asked(work, options, each, "target", cache) for each in targets]
    stopped: list[Gate | None] = [None] * len(targets)
    batch = Batch(
        work.rows, _baseline(work, options, baseline, cache), sources, rules, journal=journal,
        is_enough=_stopping(options, stopped) if options.limits.is_sequential else None,
        progress=_progress(options, context, len(work.rows) - len(found.rows)),
    )  # fmt: skip
    batch.recall(found.rows)
    await batch.run(work.access.concurrency * _AHEAD)
    return Done(
        baseline=infos[0] if baseline is not None else _snapshot_info(work),
        targets=tuple(infos[len(infos) - len(targets) :]),
        floor=floor,
        finished=tuple(batch.finished),
        stopped=tuple(stopped),
        recalled=len(found.rows),
        retries=sum(each.retries for each in opened),
        cache=cache,
    )


@asynccontextmanager
async def _journal(work: Work, options: Options) -> AsyncIterator[tuple[RunJournal | None, Found]]:
    if options.journal is None:
        yield None, Found()
        return
    settings = settings_of(work, options)
    if options.is_resumed:
        journal, found = RunJournal.resume(options.journal, settings)
    else:
        journal, found = RunJournal.begin(options.journal, settings), Found()
    try:
        yield journal, found
    finally:
        journal.close()


async def info_of(engine: Engine) -> EngineInfo:
    """Its model and version; the version is None where it does not tell. Raises EngineTrouble without a model."""
    model = await engine.model()
    return EngineInfo(url=engine.url, model=model, version=await engine.version())


async def _floor(
    work: Work, options: Options, context: Surroundings, baseline: Engine | None, infos: Sequence[EngineInfo],
    journal: RunJournal | None, found: Found,
) -> ReplayNoise:  # fmt: skip
    """The snapshot's, the journal's, or a new one, which the journal keeps."""
    if found.start is not None:
        start = msgspec.json.decode(found.start, type=_Start)
        if start.engines != list(infos):
            was = "; ".join(
                f"{one.url} was {one.model} {one.version or ''} and is {other.model} {other.version or ''}"
                for one, other in zip(start.engines, infos, strict=False)
                if one != other
            )
            raise Mistake(f"--resume {options.journal}: other engines: {was}")
        return dataclasses.replace(replay_noise_of(start.measured), failed=start.failed, failure=start.failure)
    if baseline is None:
        floor = work.snapshot.floor if work.snapshot is not None else ReplayNoise()
    else:
        floor = await floor_of_rows(
            work.rows, baseline, work.sampling, options.noise_answers, context, has_progress=options.has_progress
        )
    if journal is not None:
        start = _Start(
            engines=list(infos), measured=list(floor.measured), failed=floor.failed, failure=floor.failure
        )  # fmt: skip
        journal.start(msgspec.json.encode(start))
    return floor


async def floor_of_rows(
    rows: Sequence[Row], baseline: Engine, sampling: Sampling, count: int, context: Surroundings, *, has_progress: bool
) -> ReplayNoise:
    """On `count` prompts of all the dataset's lengths. Raises EngineTrouble where no answer could be measured."""
    if not count:
        return ReplayNoise()
    report = Progress(context.errors, "noise floor", count) if has_progress else None
    return await noise_floor(baseline, [row.question for row in rows], sampling, count, report or (lambda done: None))


def _snapshot_info(work: Work) -> EngineInfo:
    known = work.snapshot.baseline if work.snapshot is not None else None
    return known or EngineInfo(url=work.snapshot_name)


def _asked(work: Work, options: Options, engine: Engine, side: str, cache: Cache | None) -> Asked:
    return Asked(
        engine, work.access, work.sampling, side=side, cache=cache, request_name=options.request_name,
        pace=None if options.per_s is None else Pace(options.per_s),
    )  # fmt: skip


def _baseline(work: Work, options: Options, engine: Engine | None, cache: Cache | None) -> Source:
    if engine is not None:
        return _asked(work, options, engine, "baseline", cache)
    return Recalled(work.recalled)


def _stopping(options: Options, stopped: list[Gate | None]) -> Any:
    def is_enough(counts: Sequence[Mapping[Status, int]]) -> bool:
        for target, each in enumerate(counts):
            if stopped[target] is None:
                stopped[target] = stopping(each, options.limits)
        return all(gate is not None for gate in stopped)

    return is_enough


def _progress(options: Options, context: Surroundings, missing: int) -> Progress | None:
    return Progress(context.errors, "batch-compare", missing) if options.has_progress and missing else None
