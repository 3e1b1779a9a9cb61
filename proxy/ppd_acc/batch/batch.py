"""Many prompts on a baseline and on targets: who is asked what, when, and what is kept of it.

Every engine has its own limit; a sample's engines are asked at the same time, and only so many samples are begun that
all limits can be used. Finished samples are kept encoded, as the journal and the report have them.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import msgspec

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.cache import Cache, key_of
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.batch.run_journal import RunJournal
from ppd_acc.compare.compare import answer_or_trouble, compare_answers, failed_sample, force
from ppd_acc.compare.normalizing import Matching
from ppd_acc.data.datasets import Row
from ppd_acc.data.report import Sample, Status
from ppd_acc.data.snapshots import Kept
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_shell.tasks import Tasks

Tops = Literal["all", "near", "none"]
_NEAR = 5
_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]+")
_encode = msgspec.json.Encoder().encode


class Pace:
    """Lets one through every 1 / `per_s` seconds."""

    def __init__(self, per_s: float) -> None:
        self._every_s = 1 / per_s
        self._next_at = 0.0

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._next_at = max(self._next_at, now)
        at, self._next_at = self._next_at, self._next_at + self._every_s
        if at > now:
            await asyncio.sleep(at - now)


class Source(Protocol):
    """Where one side's answers come from. Raises EngineTrouble."""

    async def answer(self, number: int, row: Row) -> Answer: ...


class Asked:
    """Answers of an engine: paced and cached where that is wanted. `side` is what it is in this run;
    names of requests begin with `request_name`, without one they have none."""

    def __init__(
        self, engine: Engine, access: Access, sampling: Sampling, *, side: str, pace: Pace | None = None,
        cache: Cache | None = None, request_name: str | None = None,
    ) -> None:  # fmt: skip
        self.engine = engine
        self._access = access
        self._sampling = sampling
        self._pace = pace
        self._cache = cache
        self._side = side
        self._name = request_name

    async def answer(self, number: int, row: Row) -> Answer:
        if self._cache is None:
            return await self._ask(number, row)
        path, body = row.question.body(self._access.endpoint, await self.engine.model(), self._sampling)
        key = key_of(self._side, self.engine.url + path, self.engine.sent_headers, body)
        found = self._cache.get(key)
        if found is None:
            found = await self._ask(number, row)
            self._cache.put(key, self.engine.url, found)
        return found

    async def _ask(self, number: int, row: Row) -> Answer:
        if self._pace is not None:
            await self._pace.wait()
        safe = _UNSAFE.sub("_", row.sample_id)[:64]
        request_id = f"{self._name}-{self._side}-{number}-{safe}" if self._name else None
        return await self.engine.ask(row.question, self._sampling, request_id=request_id)


class Recalled:
    """Answers of a snapshot, by sample id."""

    def __init__(self, samples: Mapping[str, Kept]) -> None:
        self._samples = samples

    async def answer(self, number: int, row: Row) -> Answer:
        known = self._samples[row.sample_id]
        if known.answer is None:
            raise EngineTrouble(known.error_reason or "missing", known.error or "the snapshot has no answer")
        return known.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How answers are judged and what is kept of them. `forcing` scores divergent answers on the baseline."""

    sampling: Sampling
    floor: ReplayNoise
    matching: Matching = field(default_factory=Matching)
    forcing: Engine | None = None
    tops: Tops = "all"


class _Brief(msgspec.Struct, kw_only=True):
    """What counting needs of an encoded sample."""

    status: Status


class Batch:
    """One run. `finished` has the encoded samples of each row, one per target, None where the row is not finished.

    `is_enough` is asked with the statuses' counts (one per target) of the first rows of the dataset, row by row as far
    as none is missing, so what it decides does not depend on which answers came first. `progress` hears how many are
    done after each of them, and every `beat_s`.
    """

    def __init__(
        self, rows: Sequence[Row], baseline: Source, targets: Sequence[Source], rules: Rules, *,
        journal: RunJournal | None = None, is_enough: Callable[[Sequence[Mapping[Status, int]]], bool] | None = None,
        progress: Callable[[int, str], None] | None = None, beat_s: float = 5.0,
    ) -> None:  # fmt: skip
        self._rows = rows
        self._sources = (baseline, *targets)
        self._rules = rules
        self._journal = journal
        self._is_enough = is_enough
        self._progress = progress
        self._beat_s = beat_s
        self.finished: list[tuple[bytes, ...] | None] = [None] * len(rows)
        self._statuses: list[tuple[Status, ...] | None] = [None] * len(rows)
        self._in_order = 0
        self._ordered: list[Counter[Status]] = [Counter() for _ in targets]
        self._counts: Counter[Status] = Counter()
        self._done = 0
        self.is_stopped = False

    def recall(self, rows: Mapping[int, tuple[bytes, ...]]) -> None:
        """Rows that an earlier run finished."""
        brief = msgspec.json.Decoder(_Brief)
        for number, samples in rows.items():
            self._note(number, samples, tuple(brief.decode(each).status for each in samples))
        self._done = 0

    async def run(self, at_once: int) -> None:
        """Asks for what is missing, `at_once` samples at a time. Raises Trouble where the disk fails."""
        missing = (number for number, samples in enumerate(self.finished) if samples is None)

        async def work() -> None:
            for number in missing:
                if self.is_stopped:
                    break
                await self._finish(number)

        tasks = Tasks(asyncio.get_running_loop())
        tasks.spawn(self._beat(), name="progress of a batch")
        try:
            await asyncio.gather(*(work() for _ in range(min(at_once, len(self._rows)))))
        finally:
            await tasks.stop()

    async def _beat(self) -> None:
        """People hear of a run that stands still, too."""
        while self._progress is not None:
            await asyncio.sleep(self._beat_s)
            self._progress(self._done, self._told())

    async def _finish(self, number: int) -> None:
        row = self._rows[number]
        asked = (answer_or_trouble(partial(source.answer, number, row)) for source in self._sources)
        ours, *theirs = await asyncio.gather(*asked)
        samples = [await self._judged(row, ours, each) for each in theirs]
        for sample in samples:
            sample.metadata = {**row.metadata} if row.expected is None else {**row.metadata, "expected": row.expected}
        told = tuple(_encode(each) for each in samples)
        statuses: tuple[Status, ...] = tuple(each.status for each in samples)
        self._note(number, told, statuses)
        if self._journal is not None:
            await self._journal.finished(number, told, has_error="error" in statuses)
        if self._progress is not None:
            self._progress(self._done, self._told())

    def _note(self, number: int, samples: tuple[bytes, ...], statuses: tuple[Status, ...]) -> None:
        self.finished[number] = samples
        self._statuses[number] = statuses
        self._done += 1
        for status in statuses:
            self._counts[status] += 1
        while self._in_order < len(self._rows) and (each := self._statuses[self._in_order]) is not None:
            self._in_order += 1
            for counts, status in zip(self._ordered, each, strict=True):
                counts[status] += 1
            if self._is_enough is not None and not self.is_stopped:
                self.is_stopped = self._is_enough(self._ordered)

    def _told(self) -> str:
        shown: tuple[Status, ...] = ("real", "tie", "unclassified", "error")
        return "; " + ", ".join(f"{self._counts[status]} {status}" for status in shown)

    async def _judged(self, row: Row, ours: Answer | EngineTrouble, theirs: Answer | EngineTrouble) -> Sample:
        """Never raises what an engine did: that is an `error` sample."""
        rules = self._rules
        if isinstance(ours, EngineTrouble):
            return failed_sample(row.sample_id, row.question, ours, "baseline")
        if isinstance(theirs, EngineTrouble):
            return failed_sample(row.sample_id, row.question, theirs, "target")
        is_greedy = _is_greedy(row, rules.sampling)
        sample = compare_answers(row.sample_id, row.question, ours, theirs, rules.floor, is_greedy=is_greedy)
        _match(sample, ours, theirs, rules.matching)
        if rules.forcing is not None and sample.is_divergent and ours.prompt_token_ids:
            try:
                sample.forced = await force(rules.forcing, sample, ours.prompt_token_ids)
            except EngineTrouble as trouble:
                sample.tags.append(f"not-forced:{trouble.reason}")
        if rules.tops != "all":
            _thin(sample, rules.tops)
        return sample


def _is_greedy(row: Row, sampling: Sampling) -> bool:
    told = (row.question.extra or {}).get("temperature", sampling.temperature)
    return isinstance(told, int | float) and told < 1e-5


def _match(sample: Sample, ours: Answer, theirs: Answer, matching: Matching) -> None:
    """Makes a difference of texts equal where the rules say so. Broken numbers, tool calls and ends stay."""
    if not sample.is_divergent or sample.not_numbers or not matching.is_forgiven(ours.said, theirs.said):
        return
    sample.tags.append(f"equal-by:{','.join(matching.names)}")
    sample.status, sample.flip = "equal", None


def _thin(sample: Sample, tops: Tops) -> None:
    """Keeps the likeliest tokens only round the first difference, or nowhere."""
    at = sample.flip.position if sample.flip is not None and tops == "near" else None
    for side in (sample.baseline, sample.target):
        near = range(0) if at is None else range(at - _NEAR, at + _NEAR + 1)
        side.tops = [top if place in near else {} for place, top in enumerate(side.tops)] if at is not None else []
