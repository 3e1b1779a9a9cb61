"""The same prompt several times on one engine: how many answers are the most frequent one, and how the others part.

The most frequent answer is itself one of the runs, so few runs flatter the share: of two that differ, one is "equal".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.answers import Answer, identity
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare_answers
from ppd_acc.data.report import Flip, Sample
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.statistics.intervals import Interval, wilson

Told = Answer | EngineTrouble
Schedule = Literal["one after the other", "at once"]
SCHEDULES: tuple[Schedule, ...] = ("one after the other", "at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """One prompt's answers on one engine. `majority` is the most frequent one, of equally frequent ones the first; None
    where every run failed. `others` are the comparisons of the rest with it,
    and of every run whose logprobs are not all numbers."""

    prompt: str
    runs: int
    majority: Answer | None
    others: tuple[Sample, ...]
    distinct: int
    errors: tuple[str, ...]

    @property
    def answered(self) -> int:
        return self.runs - len(self.errors)

    @property
    def equal(self) -> int:
        return self.answered - len(self.others)

    @property
    def is_empty(self) -> bool:
        return self.majority is not None and self.majority.is_empty and not self.others

    @property
    def flips(self) -> list[Flip]:
        return [sample.flip for sample in self.others if sample.flip is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """All prompts of one engine under one schedule. `differing` runs are those that are not their prompt's majority."""

    engine: str
    schedule: Schedule
    prompts: tuple[Repeated, ...]

    @property
    def answered(self) -> int:
        return sum(each.answered for each in self.prompts)

    @property
    def differing(self) -> int:
        return sum(len(each.others) for each in self.prompts)

    @property
    def errors(self) -> list[str]:
        return [error for each in self.prompts for error in each.errors]

    @property
    def is_empty(self) -> bool:
        """Whether every answer was empty."""
        answered = [each for each in self.prompts if each.majority is not None]
        return bool(answered) and all(each.is_empty for each in answered)

    def count(self, status: str) -> int:
        return sum(sample.status == status for each in self.prompts for sample in each.others)

    def share(self, confidence: float) -> tuple[float | None, Interval]:
        """Runs equal to their majority, of all that were answered, and Wilson's interval."""
        equal = self.answered - self.differing
        return equal / self.answered if self.answered else None, wilson(equal, self.answered, confidence)


async def ask_repeatedly(
    engine: Engine,
    prompts: Sequence[str],
    sampling: Sampling,
    runs: int,
    schedule: Schedule,
    report: Callable[[], None],
) -> list[list[Told]]:
    """Every prompt `runs` times; one list for each prompt. A run that fails is told, never raised."""

    async def one(prompt: str) -> Told:
        try:
            return await engine.ask(Question(prompt=prompt), sampling)
        except EngineTrouble as trouble:
            return trouble
        finally:
            report()

    asked = [prompt for prompt in prompts for _ in range(runs)]
    if schedule == "at once":
        told = list(await asyncio.gather(*map(one, asked)))
    else:
        told = [await one(prompt) for prompt in asked]
    return [told[number * runs : (number + 1) * runs] for number in range(len(prompts))]


def tally(
    engine: str,
    schedule: Schedule,
    prompts: Sequence[str],
    told: Sequence[Sequence[Told]],
    sampling: Sampling,
    floor: ReplayNoise,
) -> Tally:
    """What the answers of all prompts come to."""
    repeated = tuple(_repeated(prompt, part, sampling, floor) for prompt, part in zip(prompts, told, strict=True))
    return Tally(engine=engine, schedule=schedule, prompts=repeated)


def _repeated(prompt: str, told: Sequence[Told], sampling: Sampling, floor: ReplayNoise) -> Repeated:
    answers = [each for each in told if isinstance(each, Answer)]
    errors = tuple(str(each) for each in told if isinstance(each, EngineTrouble))
    keys = [identity(answer) for answer in answers]
    counts = Counter(keys)
    if not answers:
        return Repeated(prompt=prompt, runs=len(told), majority=None, others=(), distinct=0, errors=errors)
    frequent = counts.most_common(1)[0][0]
    majority = answers[keys.index(frequent)]
    question, is_greedy = Question(prompt=prompt), sampling.is_greedy
    others = tuple(
        compare_answers(str(number), question, majority, answer, floor, is_greedy=is_greedy)
        for number, (key, answer) in enumerate(zip(keys, answers, strict=True))
        if key != frequent or None in answer.logprobs
    )
    return Repeated(
        prompt=prompt, runs=len(told), majority=majority, others=others, distinct=len(counts), errors=errors
    )
