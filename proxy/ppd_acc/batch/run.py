"""A whole run: it owns the engines, the noise floor, the samples, and the journal that lets it go on."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.cache import Cache
from ppd_acc.ask.engines import Engine, engines
from ppd_acc.batch.batch import Asked, Batch, Pace, Recalled, Rules, Source
from ppd_acc.batch.gating import Gate, Limits, stopping
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


class Run:
    """One batch-compare, from the engines' names to the last sample."""

    def __init__(self, work: Work, options: Options, surroundings: Surroundings) -> None:
        self._work = work
        self._options = options
        self._surroundings = surroundings
        self._journal: RunJournal | None = None
        self._found = Found()
        """What an earlier run left in the journal."""

    async def conduct(self) -> Done:
        """Raises Mistake for a journal of another run, EngineTrouble where an engine cannot even tell its model (then
        no journal is begun), Trouble where the disk fails."""
        work = self._work
        baselines = () if work.baseline is None else (work.baseline,)
        sides = ["baseline"] * len(baselines) + ["target"] * len(work.targets)
        async with engines(work.access, *baselines, *work.targets, sides=sides) as opened:
            infos = await asyncio.gather(*(info_of(each) for each in opened))
            baseline, targets = (opened[0] if baselines else None), opened[len(baselines) :]
            try:
                self._open_journal()
                floor = (await self._floor(baseline, infos)).of_run(len(work.rows))
                return await self._sampled(baseline, targets, infos, floor)
            finally:
                if self._journal is not None:
                    self._journal.close()

    async def _sampled(
        self, baseline: Engine | None, targets: Sequence[Engine], infos: Sequence[EngineInfo], floor: ReplayNoise
    ) -> Done:  # fmt: skip
        """The samples that are missing."""
        work, options, found = self._work, self._options, self._found
        cache = None
        if options.cache_dir is not None:
            cache = Cache(options.cache_dir, options.cache_ttl_s, self._surroundings.wall_clock)
        rules = Rules(
            sampling=work.sampling, floor=floor, matching=options.matching, tops=options.tops,
            forcing=baseline if options.is_forced else None,
        )  # fmt: skip
        answers: Source = Recalled(work.recalled)
        if baseline is not None:
            answers = self._asked(baseline, "baseline", cache)
        stopped: list[Gate | None] = [None] * len(targets)
        missing = len(work.rows) - len(found.rows)
        batch = Batch(
            work.rows, answers, [self._asked(each, "target", cache) for each in targets], rules, journal=self._journal,
            is_enough=partial(_stop, stopped, options.limits) if options.limits.is_sequential else None,
            progress=self._progress("batch-compare", missing) if missing else None,
        )  # fmt: skip
        batch.recall(found.rows)
        await batch.run(work.access.concurrency * _AHEAD)
        snapshot = work.snapshot.baseline if work.snapshot is not None else None
        return Done(
            baseline=infos[0] if baseline is not None else snapshot or EngineInfo(url=work.snapshot_name),
            targets=tuple(infos[len(infos) - len(targets) :]),
            floor=floor,
            finished=tuple(batch.finished),
            stopped=tuple(stopped),
            recalled=len(found.rows),
            retries=sum(each.retries for each in (baseline, *targets) if each is not None),
            cache=cache,
        )

    def _open_journal(self) -> None:
        path, settings = self._options.journal, settings_of(self._work, self._options)
        if path is not None and self._options.is_resumed:
            self._journal, self._found = RunJournal.resume(path, settings)
        elif path is not None:
            self._journal = RunJournal.begin(path, settings)

    async def _floor(self, baseline: Engine | None, infos: Sequence[EngineInfo]) -> ReplayNoise:
        """The journal's, the snapshot's, or a new one, which the journal keeps."""
        work = self._work
        if self._found.start is not None:
            return self._kept_floor(self._found.start, infos)
        if baseline is None:
            floor = work.snapshot.floor if work.snapshot is not None else ReplayNoise()
        else:
            count = self._options.noise_answers
            progress = self._progress("noise floor", count)
            floor = await floor_of_rows(work.rows, baseline, work.sampling, count, progress)
        if self._journal is not None:
            start = _Start(
                engines=list(infos), measured=list(floor.measured), failed=floor.failed, failure=floor.failure
            )  # fmt: skip
            self._journal.start(msgspec.json.encode(start))
        return floor

    def _kept_floor(self, encoded: bytes, infos: Sequence[EngineInfo]) -> ReplayNoise:
        start = msgspec.json.decode(encoded, type=_Start)
        if start.engines != list(infos):
            was = "; ".join(
                f"{one.url} was {one.model} {one.version or ''} and is {other.model} {other.version or ''}"
                for one, other in zip(start.engines, infos, strict=False)
                if one != other
            )
            raise Mistake(f"--resume {self._options.journal}: other engines: {was}")
        return dataclasses.replace(replay_noise_of(start.measured), failed=start.failed, failure=start.failure)

    def _asked(self, engine: Engine, side: str, cache: Cache | None) -> Asked:
        pace = None if self._options.per_s is None else Pace(self._options.per_s)
        return Asked(
            engine, self._work.access, self._work.sampling, side=side, cache=cache, pace=pace,
            request_name=self._options.request_name,
        )  # fmt: skip

    def _progress(self, what: str, count: int) -> Progress | None:
        return Progress(self._surroundings.errors, what, count) if self._options.has_progress else None


async def info_of(engine: Engine) -> EngineInfo:
    """Its model and version; the version is None where it does not tell. Raises EngineTrouble without a model."""
    model = await engine.model()
    return EngineInfo(url=engine.url, model=model, version=await engine.version())


async def floor_of_rows(
    rows: Sequence[Row], baseline: Engine, sampling: Sampling, count: int, progress: Progress | None
) -> ReplayNoise:
    """On `count` prompts of all the dataset's lengths. Raises EngineTrouble where no answer could be measured."""
    if not count:
        return ReplayNoise()
    return await noise_floor(
        baseline, [row.question for row in rows], sampling, count, progress or (lambda done: None)
    )


def _stop(stopped: list[Gate | None], limits: Limits, counts: Sequence[Mapping[Status, int]]) -> bool:
    """Whether each target's gate is decided; `stopped` keeps what was, by target."""
    for target, each in enumerate(counts):
        if stopped[target] is None:
            stopped[target] = stopping(each, limits)
    return all(gate is not None for gate in stopped)
