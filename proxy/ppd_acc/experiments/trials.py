"""Trials of a bisection: some cuts of a prompt on both engines, at one length or with so many requests at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.compare.compare import compare, compare_answers
from ppd_acc.data.report import Sample, Status
from ppd_acc.experiments.cuts import Cuts
from ppd_acc.outcome import Trouble
from ppd_acc.views import counted
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.statistics.dose import Tried


@dataclass(slots=True)
class Step:
    """All trials of one dose. Errors are no runs; two empty answers are one that shows nothing."""

    dose: int
    statuses: Counter[Status] = field(default_factory=Counter)

    @property
    def runs(self) -> int:
        return self.statuses.total() - self.statuses["error"]

    def diverged(self, *, counts_all: bool) -> int:
        """Real differences; with `counts_all` ties and what cannot be classified, too."""
        same = self.statuses["equal"] + self.statuses["empty"]
        return self.runs - same if counts_all else self.statuses["real"]


@dataclass(slots=True)
class Trials:
    """Asks and counts. `report` hears of every comparison. More failures than `most_errors` are Trouble."""

    baseline: Engine
    target: Engine
    cuts: Cuts
    sampling: Sampling
    floor: ReplayNoise
    counts_all: bool
    most_errors: int
    report: Callable[[], None]
    steps: dict[int, Step] = field(default_factory=dict)
    first_error: str | None = None
    errors: int = 0
    _known: dict[int, Answer] = field(default_factory=dict)
    _asked: int = 0

    async def at_length(self, length: int, repeats: int) -> None:
        """`repeats` cuts of this length on both engines."""
        step = self.steps.setdefault(length, Step(length))
        numbers = range(step.statuses.total(), step.statuses.total() + repeats)
        self._add(step, await asyncio.gather(*(self._compare(length, number) for number in numbers)))

    async def _compare(self, length: int, number: int) -> Sample:
        question = self.cuts.question(length, number)
        sample = await compare(
            self.baseline, self.target, f"{length}-{number}", question, self.sampling, self.floor
        )  # fmt: skip
        self.report()
        return sample

    async def at_once(self, requests: int, length: int, repeats: int) -> None:
        """Waves of so many requests on the target, until there are `repeats` answers; the baseline gets one request at
        a time. Cuts have the same length and differ."""
        step = self.steps.setdefault(requests, Step(requests))
        for _ in range(-(-repeats // requests)):
            numbers = range(self._asked, self._asked + requests)
            self._asked += requests
            for number in numbers:
                if number not in self._known:
                    await self._learn(number, length)
            self._add(step, await asyncio.gather(*(self._held(length, number) for number in numbers)))

    async def _learn(self, number: int, length: int) -> None:
        try:
            self._known[number] = await self.baseline.ask(self.cuts.question(length, number), self.sampling)
        except EngineTrouble as trouble:
            raise Trouble(f"--baseline: {trouble}") from None

    async def _held(self, length: int, number: int) -> Sample:
        """The target's answer against the known one."""
        question = self.cuts.question(length, number)
        try:
            answer = await self.target.ask(question, self.sampling)
        except EngineTrouble as trouble:
            return Sample(sample_id=str(number), status="error", error=str(trouble), failed="target")
        finally:
            self.report()
        known = self._known.pop(number)
        is_greedy = self.sampling.is_greedy
        return compare_answers(str(number), question, known, answer, self.floor, is_greedy=is_greedy)

    def _add(self, step: Step, samples: Sequence[Sample]) -> None:
        for sample in samples:
            step.statuses[sample.status] += 1
            if sample.status == "error":
                self.errors += 1
                self.first_error = self.first_error or f"--{sample.failed}: {sample.error}"
        if self.errors > self.most_errors:
            raise Trouble(f"{counted(self.errors, 'comparison')} failed, the first: {self.first_error}")

    def tried(self) -> list[Tried]:
        return [Tried(step.dose, step.runs, step.diverged(counts_all=self.counts_all)) for step in self.rising()]

    def rising(self) -> list[Step]:
        return [self.steps[dose] for dose in sorted(self.steps)]

    def total(self) -> Counter[Status]:
        return sum((step.statuses for step in self.steps.values()), Counter[Status]())


def boundaries(block: int, least: int, most: int, count: int) -> Iterator[tuple[int, int]]:
    """Lengths just below, at and just above multiples of a block, with their offset from it; `count` multiples from
    `least` to `most`, close ones first and then further apart."""
    first, last = -(-(least + 1) // block), (most - 1) // block
    if last < first:
        return
    chosen = {first + round((last - first) * (place / max(1, count - 1)) ** 2) for place in range(count)}
    for multiple in sorted(chosen):
        for offset in (-1, 0, 1):
            yield multiple * block + offset, offset
