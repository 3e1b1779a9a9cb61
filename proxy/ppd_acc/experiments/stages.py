"""The experiments of `diagnose`: the same prompts on the baseline and through each part of a split deployment."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import msgspec

from ppd_acc.ask.access import Endpoint, Sampling
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare
from ppd_acc.compare.pools import Verdict, judge_together
from ppd_acc.data.report import Sample
from ppd_acc.outcome import Exit
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.verdicts.diagnosis import Stage, StageTally, State
from ppd_wire.answers.scored import Position
from ppd_wire.requests.asking import salted

FOLLOW_UP = "Go on, and give one more example."
_STATES: Mapping[Exit, State] = MappingProxyType(
    {Exit.PASS: "clean", Exit.DIFFERENT: "broken", Exit.INFRASTRUCTURE: "failed", Exit.INCONCLUSIVE: "inconclusive"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Who is asked. `prefill` is the target where no prefill engine was given, `decode` None without one."""

    baseline: Engine
    target: Engine
    prefill: Engine
    decode: Engine | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How it is asked. `salt` keeps caches apart (vLLM's cache_salt); None where engines refuse the field."""

    sampling: Sampling
    endpoint: Endpoint
    salt: str | None

    def salted(self, name: str) -> dict[str, Any] | None:
        return salted(f"{self.salt}-{name}") if self.salt is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """A token of the baseline's answer in the prefill engine's prefill. `delta` is |logprob difference| from the
    baseline's own prefill, `margin` how much likelier the prefill engine's best token is; NaN where one told none."""

    delta: float
    margin: float


@dataclass(slots=True)
class Experiments:
    """Samples by the stage that they turned out to be of, routes by the one they were meant for. `prefilled` are only
    there where a prefill engine is asked by itself; `troubles` say why some are missing."""

    samples: dict[Stage, list[Sample]] = field(default_factory=dict)
    routes: dict[Stage, Counter[str]] = field(default_factory=dict)
    prefilled: list[list[Prefilled]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def add(self, expected: Stage, sample: Sample) -> None:
        decision = sample.target.decision
        if decision is not None:
            self.routes.setdefault(expected, Counter())[decision] += 1
        stage = stage_of(expected, decision)
        sample.tags = [stage, *sample.tags]
        self.samples.setdefault(stage, []).append(sample)


def stage_of(expected: Stage, decision: str | None) -> Stage:
    """The stage an answer is evidence of: our proxy says which route it took, others are taken at their word."""
    route = (decision or "").partition(";")[0]
    if route == "aggregated":
        return "aggregated"
    if expected in ("pd", "direct") and route in ("pd", "direct"):
        return "pd" if route == "pd" else "direct"
    return expected


async def run_stages(
    parts: Parts, questions: Sequence[Question], asking: Asking, floor: ReplayNoise, report: Callable[[], None]
) -> Experiments:
    """Every experiment on every question; `report` hears of each that is done. A failure is an error sample."""
    found = Experiments()

    async def one(number: int, question: Question) -> None:
        await _experiment(parts, str(number), question, asking, floor, found)
        report()

    await asyncio.gather(*(one(number, question) for number, question in enumerate(questions)))
    return found


async def _experiment(
    parts: Parts, name: str, question: Question, asking: Asking, floor: ReplayNoise, found: Experiments
) -> None:
    """One question: cold, then what needs it to have been asked before, then the engines by themselves."""

    def ask(other: Engine, stage: Stage, what: Question, sampling: Sampling = asking.sampling) -> Awaitable[Sample]:
        return compare(parts.baseline, other, f"{name}-{stage}", what, sampling, floor)

    cold = replace(question, extra=asking.salted(name))
    first = await ask(parts.target, "pd", cold)
    found.add("pd", first)
    found.add("warm", await ask(parts.target, "warm", cold))
    later = _later_turn(cold, first, asking.endpoint)
    if later is not None:
        found.add("direct", await ask(parts.target, "direct", later))
    fresh = replace(question, extra=asking.salted(f"{name}-prefill"))
    shortest = replace(asking.sampling, max_tokens=1)
    found.add("prefill", await ask(parts.prefill, "prefill", fresh, shortest))
    if parts.prefill is not parts.target:
        try:
            found.prefilled.append(await _prefilled(parts, fresh, first, shortest))
        except EngineTrouble as trouble:
            found.troubles.append(str(trouble))
    if parts.decode is not None:
        alone = replace(question, extra=asking.salted(f"{name}-decode"))
        found.add("decode", await ask(parts.decode, "decode", alone))


async def _prefilled(parts: Parts, question: Question, first: Sample, sampling: Sampling) -> list[Prefilled]:
    """The baseline's answer in both prefills: as many tokens as it has, where P-only generates one. Raises
    EngineTrouble."""
    tokens = [token for token in first.baseline.tokens if isinstance(token, int)]
    prompt = (await parts.baseline.ask(question, sampling)).prompt_token_ids
    if not tokens or len(tokens) != len(first.baseline.tokens) or not prompt:
        return []
    ours, theirs = await asyncio.gather(parts.baseline.score(prompt, tokens), parts.prefill.score(prompt, tokens))
    return [_prefilled_token(one, other) for one, other in zip(ours, theirs, strict=True)]


def _prefilled_token(one: Position, other: Position) -> Prefilled:
    if one.logprob is None or other.logprob is None or other.margin is None:
        return Prefilled(delta=math.nan, margin=math.nan)
    return Prefilled(delta=abs(one.logprob - other.logprob), margin=other.margin)


def _later_turn(cold: Question, first: Sample, endpoint: Endpoint) -> Question | None:
    """The conversation goes on with the target's own answer, which its decode engine holds; None without one."""
    if first.status == "error" or not first.target.text:
        return None
    if endpoint == "completions":
        return replace(cold, prompt=f"{cold.prompt}{first.target.text}\n{FOLLOW_UP}\n")
    turns = (("user", cold.prompt), ("assistant", first.target.text), ("user", FOLLOW_UP))
    messages = [{"role": role, "content": content} for role, content in turns]
    return Question(messages=messages, extra=cold.extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """One stage, judged. `verdict` is None where nothing was asked that turned out to be of it."""

    stage: Stage
    state: State
    reasons: tuple[str, ...]
    verdict: Verdict | None
    routes: Mapping[str, int]
    samples: Sequence[Sample]
    scored_tokens: int = 0
    scored_real: int = 0
    """Of the tokens that the prefill engine scored: those it holds another one for likelier, beyond the noise."""

    @property
    def has_latent(self) -> bool:
        """Whether tokens are equal while logprobs are beyond the noise floor."""
        is_equal = self.verdict is not None and self.verdict.divergent == 0
        return is_equal and self.state == "broken"

    @property
    def tally(self) -> StageTally | None:
        """What the stage saw, in tokens; None where it saw nothing."""
        if self.verdict is None:
            return None
        at_risk = sum(each.compared_tokens + each.is_divergent for each in self.samples)
        found = self.verdict.counts["real"] + self.scored_real + self.verdict.not_numbers
        return StageTally(
            real=min(at_risk + self.scored_tokens, found),
            at_risk=at_risk + self.scored_tokens,
            beyond=self.verdict.precision.beyond,
            tokens=self.verdict.precision.tokens,
        )

    def builtin_samples(self) -> list[Any]:
        return [msgspec.to_builtins(sample) for sample in self.samples]


def judge_stages(found: Experiments, floor: ReplayNoise, *, has_decode: bool, alpha: float) -> list[StageResult]:
    """Every stage in the order in which a request passes them. `alpha` is shared by the stages' tests (Bonferroni)."""
    wanted: list[Stage] = ["prefill", "pd", "warm", "direct"]
    wanted += ["decode"] if has_decode else []
    wanted += ["aggregated"] if "aggregated" in found.samples else []
    return [_judge(stage, found, floor, alpha / len(wanted)) for stage in wanted]


def _judge(stage: Stage, found: Experiments, floor: ReplayNoise, alpha: float) -> StageResult:
    samples = found.samples.get(stage, [])
    routes = found.routes.get(stage, Counter())
    if not samples:
        told = ", ".join(routes)
        why = f"the proxy went another way: {told}" if told else "nothing could be asked for it"
        return StageResult(stage=stage, state="skipped", reasons=(why,), verdict=None, routes=routes, samples=())
    by_answer = found.prefilled if stage == "prefill" else []
    scored = [each for answer in by_answer for each in answer]
    more_deltas = [[each.delta for each in answer] for answer in by_answer]
    verdict = judge_together(samples, floor, alpha=alpha, more_deltas=more_deltas)
    state, reasons = _STATES[verdict.exit], verdict.reasons
    real = sum(each.margin > floor.largest_shift for each in scored) if floor.largest_shift is not None else 0
    if real:
        state = "broken"
        reasons = (*reasons, f"{real} of {len(scored)} tokens are not the prefill engine's best, beyond the noise")
    return StageResult(
        stage=stage, state=state, reasons=reasons, verdict=verdict, routes=routes, samples=samples,
        scored_tokens=len(scored), scored_real=real,
    )  # fmt: skip
