"""One prompt on two engines, and the noise floor that their difference is held against."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question
from ppd_acc.ask.variations import vary_question
from ppd_acc.compare.broken_numbers import judge_broken_numbers
from ppd_acc.compare.placing import Place, have_same_ids, place_of
from ppd_acc.data.report import LONGER_THAN_FLOOR, SAME_TOKENS, Flip, Forced, Noise, Sample, Side, Status
from ppd_accuracy.answers import flips
from ppd_accuracy.answers.said import Difference, differences
from ppd_accuracy.answers.scores import Floats, scores_of, summarize
from ppd_wire.answers.scored import Position

_FLOOR_WORKERS = 512
"""Answers of a noise floor at once, at most."""


def side_of(answer: Answer) -> Side:
    return Side(
        text=answer.text,
        reasoning=answer.reasoning,
        tool_calls=answer.tool_calls,
        tokens=answer.tokens,
        logprobs=answer.logprobs,
        tops=answer.tops,
        finish_reason=answer.finish_reason,
        request_id=answer.request_id,
        total_ms=answer.total_ms,
        first_ms=answer.first_ms,
        decision=answer.decision,
    )


def compare_answers(
    sample_id: str, question: Question, baseline: Answer, target: Answer, floor: flips.ReplayNoise, *, is_greedy: bool
) -> Sample:
    """What differs between two answers to one question, up to the first difference.

    Sampled answers differ by chance: their difference is `unclassified` whatever its margin. A greedy answer that ends
    before the other one is `real` where it is empty or was cut at the token limit that both had: no margin explains it.
    A logprob that is no number never passes (`judge_broken_numbers`). Only the part of the floor that was measured on
    prompts as long judges (`ReplayNoise.for_prompt`); where there is none, it has the tag `longer-than-floor`.
    Whatever the tokens say, answers that said something else differ; two that said nothing are `empty`.
    """
    has_floor, floor = floor.answers > 0, floor.for_prompt(baseline.prompt_tokens)
    place = place_of(baseline, target)
    is_by_tokens, position = place.unit == "tokens", place.position
    differing = differences(baseline.said, target.said)
    flip, tags = None, list[str]()
    if position is None:
        status, tags = _without_a_place(baseline, target, differing, is_greedy=is_greedy)
        if not is_by_tokens and baseline.text != target.text:
            flip = Flip(position=len(place.ones))  # words hide it: white space
    else:
        tops = (baseline.tops, target.tops) if is_by_tokens else ((), ())
        found = flips.flip_of(position, place.ones, place.others, *tops)
        status = floor.judge(found) if is_greedy else "unclassified"
        lost = _lost(baseline, target, place) if is_greedy else None
        if lost is not None:
            status, tags = "real", [lost]
        elif has_floor and not floor.answers:
            tags = [LONGER_THAN_FLOOR]
        flip = Flip(
            position=position,
            baseline_token=found.baseline_token,
            target_token=found.target_token,
            baseline_text=_text_at(baseline, position) if is_by_tokens else None,
            target_text=_text_at(target, position) if is_by_tokens else None,
            baseline_margin=found.baseline_margin,
            target_margin=found.target_margin,
            shift=found.shift,
            is_bound=found.is_bound,
            chance=floor.chance(found),
            floor_tokens=floor.tokens or None,
            floor_shift=floor.largest_shift,
        )
    deltas = _deltas(baseline, target, place.common) if is_by_tokens else np.array([])
    finite = deltas[np.isfinite(deltas)]
    sample = Sample(
        sample_id=sample_id,
        status=status,
        unit=place.unit,
        prompt=question.text if question.messages is None else None,
        messages=[dict(each) for each in question.messages] if question.messages is not None else None,
        prompt_tokens=baseline.prompt_tokens,
        baseline=side_of(baseline),
        target=side_of(target),
        flip=flip,
        differences=differing,
        compared_tokens=place.common,
        mean_delta=float(finite.mean()) if len(finite) else None,
        max_delta=float(finite.max()) if len(finite) else None,
        max_delta_at=int(np.nanargmax(np.where(np.isfinite(deltas), deltas, -1.0))) if len(finite) else None,
        not_numbers=len(deltas) - len(finite) + (is_by_tokens and _is_hidden(baseline, target, place.common)),
        has_same_finish=baseline.finish_reason == target.finish_reason,
        tags=tags,
    )
    return judge_broken_numbers(sample)


def _without_a_place(
    baseline: Answer, target: Answer, differing: Sequence[Difference], *, is_greedy: bool
) -> tuple[Status, list[str]]:
    """Status and tags where no token or word is known to differ. That the same token ids, or the same texts, are read
    as other calls is not the model's doing; of names and words alone nobody knows."""
    if baseline.is_empty and target.is_empty:
        return "empty", []
    if not differing:
        return "equal", []
    if have_same_ids(baseline, target):
        return "real", [SAME_TOKENS]
    parts = {each.part for each in differing}
    is_calls = "tool_calls" in parts and parts <= {"tool_calls", "finish_reason"}
    return "real" if is_greedy and is_calls else "unclassified", []


def _lost(baseline: Answer, target: Answer, place: Place) -> str | None:
    """How the one that ends at the first difference lost the rest: `empty`, `cut-short`, or None where it did not or
    nobody knows (an engine may end without listing its end token). Words tell nothing but that one side is empty."""
    shorter, longer = sorted((baseline, target), key=lambda answer: len(answer.tokens))
    if "tokens" not in (baseline.unit, target.unit) or not longer.tokens:
        return None
    if not shorter.tokens:
        has_other = shorter.text or shorter.reasoning or shorter.tool_calls
        return None if shorter.unit == "words" and has_other else "empty"
    is_prefix = place.unit == "tokens" and place.position == len(shorter.tokens)
    return "cut-short" if is_prefix and shorter.is_cut else None


def _text_at(answer: Answer, position: int) -> str | None:
    return answer.token_texts[position] if position < len(answer.token_texts) else None


def _deltas(baseline: Answer, target: Answer, common: int) -> Floats:
    """|logprob difference| of the tokens before the first difference; empty where an engine told none."""
    if not baseline.logprobs or not target.logprobs:
        return np.array([])
    mine = [math.nan if each is None else each for each in baseline.logprobs[:common]]
    theirs = [math.nan if each is None else each for each in target.logprobs[:common]]
    deltas: Floats = np.abs(np.array(mine) - np.array(theirs))
    return deltas


def _is_hidden(baseline: Answer, target: Answer, position: int) -> bool:
    """Whether a logprob at the first difference is no number: then no margin is."""
    told = (answer.logprobs[position] for answer in (baseline, target) if position < len(answer.logprobs))
    return None in tuple(told)


async def compare(
    baseline: Engine, target: Engine, sample_id: str, question: Question, sampling: Sampling, floor: flips.ReplayNoise
) -> Sample:
    """Asks both at once. An engine that fails makes an `error` sample, never an exception."""
    ours, theirs = await asyncio.gather(
        *(
            answer_or_trouble(partial(engine.ask, question, sampling, request_id=f"ppd-acc-{sample_id}-{name}"))
            for engine, name in ((baseline, "baseline"), (target, "target"))
        )
    )
    if isinstance(ours, EngineTrouble):
        return failed_sample(sample_id, question, ours, "baseline")
    if isinstance(theirs, EngineTrouble):
        return failed_sample(sample_id, question, theirs, "target")
    return compare_answers(sample_id, question, ours, theirs, floor, is_greedy=sampling.is_greedy)


async def answer_or_trouble(ask: Callable[[], Awaitable[Answer]]) -> Answer | EngineTrouble:
    """What an engine did, as a value, so that one side's failure does not end the other's request."""
    try:
        return await ask()
    except EngineTrouble as trouble:
        return trouble


def failed_sample(
    sample_id: str, question: Question, trouble: EngineTrouble, side: Literal["baseline", "target"]
) -> Sample:
    """The `error` sample of a prompt that one side did not answer."""
    return Sample(
        sample_id=sample_id,
        status="error",
        prompt=question.text if question.messages is None else None,
        messages=[dict(each) for each in question.messages] if question.messages is not None else None,
        error=str(trouble),
        error_reason=trouble.reason,
        failed=side,
    )


async def force(baseline: Engine, sample: Sample, prompt_token_ids: Sequence[int]) -> Forced | None:
    """The target's answer under the baseline's prefill; None without ids or logprobs. Raises EngineTrouble."""
    ids = [token for token in sample.target.tokens if isinstance(token, int)]
    if not ids or len(ids) != len(sample.target.tokens) or len(sample.target.logprobs) != len(ids):
        return None
    return forced_of(sample.target.logprobs, await baseline.score(prompt_token_ids, ids))


def forced_of(logprobs: Sequence[float | None], positions: Sequence[Position]) -> Forced:
    """One answer's logprobs against what another engine's prefill makes of the same tokens, at least one."""
    statistics = summarize(scores_of(logprobs, positions))
    return Forced(
        tokens=statistics.tokens,
        mean_delta=statistics.mean_delta,
        max_delta=statistics.max_delta,
        max_delta_at=statistics.max_delta_at,
        likelihood_delta=statistics.likelihood_delta,
        token_accuracy=statistics.token_accuracy,
        not_numbers=0 if statistics.is_finite else sum(each.logprob is None for each in positions) or 1,
    )


async def noise_floor(
    baseline: Engine, questions: Sequence[Question], sampling: Sampling, count: int, report: Callable[[int], None]
) -> flips.ReplayNoise:
    """The baseline against itself: `count` answers, asked twice and scored by its own prefill. Nothing is cached;
    `report` hears how many are done. Answers that fail are left out and counted; raises EngineTrouble where all of them
    do. An engine that cannot score is measured by its replays alone.

    Each answer is two requests, then one: no more of them are begun than the engine's own limit keeps busy, or all
    would be asked before the first is scored, and nobody could tell how long it takes.
    """
    measured: list[flips.Measured] = []
    failures: list[EngineTrouble] = []
    asked = iter(spread(questions, count))
    done = 0

    async def work() -> None:
        nonlocal done
        for question in asked:
            try:
                measured.append(await _measured(baseline, question, sampling))
            except EngineTrouble as trouble:
                failures.append(trouble)
            done += 1
            report(done)

    at_once = math.ceil(baseline.concurrency / 2) + 1
    await asyncio.gather(*(work() for _ in range(min(count, at_once, _FLOOR_WORKERS))))
    if failures and not measured:
        raise failures[0]
    failure = str(failures[0]) if failures else None
    return replace(flips.replay_noise_of(measured), failed=len(failures), failure=failure)


def spread(questions: Sequence[Question], count: int) -> list[Question]:
    """`count` questions of all lengths, the longest among them; all of them where there are fewer, and then varied: the
    same one measured twice is one measurement."""
    if not questions or count >= len(questions):
        every = range(count if questions else 0)
        return [vary_question(questions[each % len(questions)], each // len(questions)) for each in every]
    rising = sorted(questions, key=lambda question: question.size)
    return [rising[math.ceil((number + 1) * len(rising) / count) - 1] for number in range(count)]


async def _measured(baseline: Engine, question: Question, sampling: Sampling) -> flips.Measured:
    """One answer against its replay and, where the engine can score, its prefill. Raises EngineTrouble."""
    first, second = await asyncio.gather(baseline.ask(question, sampling), baseline.ask(question, sampling))
    place = place_of(first, second)
    common = place.common if place.unit == "tokens" else 0
    deltas = _deltas(first, second, common).tolist()
    shifts = _shifts(first.tops[:common], second.tops[:common])
    is_scored = False
    if first.ids and first.prompt_token_ids:
        try:
            positions = await baseline.score(first.prompt_token_ids, first.ids, top=max(2, sampling.top_k))
        except EngineTrouble:
            pass
        else:
            scores = scores_of(first.logprobs or [None] * len(first.ids), positions)
            if first.logprobs:
                deltas.extend((scores.candidate - scores.baseline).tolist())
            shifts.extend(_shifts(first.tops, [each.top for each in positions]))
            is_scored = True
    is_flipped = place.position is not None or bool(differences(first.said, second.said))
    return flips.measure(
        shifts, deltas, prompt_tokens=first.prompt_tokens, is_flipped=is_flipped, is_scored=is_scored
    )  # fmt: skip


def _shifts(ones: Sequence[dict[str, float]], others: Sequence[dict[str, float]]) -> list[float]:
    """By how much the difference of the two likeliest tokens moved, where both list both."""
    found = []
    for one, other in zip(ones, others, strict=False):
        best = sorted(one, key=lambda token: -one[token])[:2]
        if len(best) == 2 and all(token in other for token in best):
            first, second = best
            found.append((one[first] - one[second]) - (other[first] - other[second]))
    return found


def noise_of(floor: flips.ReplayNoise) -> Noise:
    """The floor in a report."""
    deltas = np.array(floor.deltas)
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    return Noise(
        answers=floor.answers,
        failed=floor.failed,
        failure=floor.failure,
        flips=floor.flips,
        tokens=floor.tokens,
        broken=floor.broken,
        longest_prompt=floor.longest_prompt,
        largest_shift=floor.largest_shift,
        largest_delta=floor.largest_delta,
        delta_quantiles={name: float(np.quantile(deltas, share)) for name, share in shares} if len(deltas) else {},
    )
