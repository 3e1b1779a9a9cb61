"""compare-streaming: the same prompt streamed by two engines, and streamed against whole on each of them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import msgspec

from ppd_acc.ask.access import Sampling, Terms
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import Engine, EngineTrouble, engines_by_side
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.ask.question import Question
from ppd_acc.ask.streams import Streamed
from ppd_acc.ask.timings import figures, figures_table
from ppd_acc.cli.flags import between, pair_flags, prompt_text, terms_flags
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags, switch
from ppd_acc.compare.broken_numbers import broken_sentence
from ppd_acc.compare.compare import compare_answers, noise_of
from ppd_acc.compare.floors import measured_floor
from ppd_acc.compare.normalizing import Matching
from ppd_acc.data.report import Sample
from ppd_acc.outcome import Exit, Result, Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import nats, noise_line
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.answers.said import EMPTY, Part, part_of

_NOISE_ANSWERS = 8
_T = TypeVar("_T")
_NAMES: tuple[tuple[Part, str], ...] = (
    ("content", "text"), ("reasoning", "reasoning"), ("tool_calls", "tool call"), ("finish_reason", "finish reason"),
)  # fmt: skip
Outcome = Literal["equal", "tie", "different", "unclassified", "empty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was compared. `check` names it; `detail` is one sentence."""

    check: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One engine's answer to the prompt, streamed and whole."""

    name: str
    streamed: Streamed
    whole: Answer


def _add_matching(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("texts that count as equal although they are not")
    group.add_argument("--normalize-whitespace", action="store_true", help="white space makes no difference")
    group.add_argument("--ignore-case", action="store_true", help="upper and lower case make no difference")
    group.add_argument("--numeric-tolerance", type=between(0, 1e300), metavar="F", help="numbers may differ by it")


def _matching(given: Given) -> Matching:
    whitespace, case, tolerance = map(given.flag, ("normalize_whitespace", "ignore_case", "numeric_tolerance"))
    return Matching(has_whitespace=whitespace, has_case=case, numeric_tolerance=tolerance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    urls: Mapping[str, str] = pair_flags()
    prompt: str = flag(type=prompt_text, metavar="TEXT", required=True, help="asked on both engines at the same time")
    timing: bool = switch("times to the first token and between tokens, too")
    skip_healthcheck: bool = switch("accepted; there is no check before the prompt")
    matching: Matching = flags(_add_matching, _matching)
    terms: Terms = terms_flags(_NOISE_ANSWERS)


async def run(options: Options, surroundings: Surroundings) -> Result:
    question, sampling = Question(prompt=options.prompt), options.terms.sampling
    async with engines_by_side(options.terms.access, options.urls) as engines:
        # The streams come first: nothing of the prompt is in a prefix cache yet.
        streams = await _all(engines, lambda engine: engine.stream(question, sampling))
        wholes = await _all(engines, lambda engine: engine.ask(question, sampling))
        floor = await measured_floor(engines[0], [question], options.terms, surroundings)
    asked = tuple(
        Asked(name=name, streamed=streamed, whole=whole)
        for name, streamed, whole in zip(options.urls, streams, wholes, strict=True)
    )
    return with_model_notes(_result(asked, question, floor, options), *engines)


async def _all(engines: Sequence[Engine], ask: Callable[[Engine], Awaitable[_T]]) -> list[_T]:
    """All at the same time. Raises Trouble, which names the side that failed."""
    answers = await asyncio.gather(*map(ask, engines), return_exceptions=True)
    for engine, answer in zip(engines, answers, strict=True):
        if isinstance(answer, EngineTrouble):
            raise Trouble(f"--{engine.side}: {answer}") from None
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def _result(asked: tuple[Asked, ...], question: Question, floor: ReplayNoise, options: Options) -> Result:
    matching, sampling = options.matching, options.terms.sampling
    baseline, target = asked
    pairs = {"streams": (baseline.streamed.answer, target.streamed.answer)}
    pairs |= {each.name: (each.whole, each.streamed.answer) for each in asked}
    samples = {
        name: compare_answers(name, question, *pair, floor, is_greedy=sampling.is_greedy)
        for name, pair in pairs.items()
    }
    findings = [
        _judge("tokens of both streams" if name == "streams" else f"{name}, streamed against whole", samples[name],
               *pair, matching)
        for name, pair in pairs.items()
    ]  # fmt: skip
    findings += _protocol(baseline.streamed, target.streamed)
    lines: list[Any] = [f"{each.outcome}: {each.check}: {each.detail}" for each in findings]
    lines += [*_counts(asked), noise_line(floor)]
    data: dict[str, Any] = {
        "matching": list(matching.names),
        "findings": [asdict(each) for each in findings],
        "samples": msgspec.to_builtins(samples),
        "streams": {each.name: _stream(each.streamed) for each in asked},
        "noise": msgspec.to_builtins(noise_of(floor)),
    }
    if options.timing:
        data["timing"] = {each.name: _timing(each.streamed) for each in asked}
        lines.append(figures_table("Timing of the streams", _rows(data["timing"])))
    return Result(exit=_exit(findings), data=data, view=tuple(lines), notes=tuple(_notes(asked, sampling)))


def _judge(check: str, sample: Sample, one: Answer, other: Answer, matching: Matching) -> Finding:
    """Equal tokens must be equal in text, reasoning, tool calls and finish reason, too."""
    if sample.not_numbers:
        outcome: Outcome = "different" if sample.status == "real" else "unclassified"
        return Finding(check=check, outcome=outcome, detail=broken_sentence(sample))
    if sample.status == "empty" and not sample.differences:
        return Finding(check=check, outcome="empty", detail=EMPTY)
    if sample.is_divergent and matching.is_forgiven(one.said, other.said):
        return Finding(check=check, outcome="equal", detail=f"the same text under {', '.join(matching.names)}")
    if sample.flip is not None:
        outcomes: Mapping[str, Outcome] = {"tie": "tie", "real": "different"}
        outcome = outcomes.get(sample.status, "different" if sample.unit == "words" else "unclassified")
        detail, flip = f"{sample.place} is the first that differs", sample.flip
        if flip.shift is not None:
            detail += f", margins {nats(flip.baseline_margin)} and {nats(flip.target_margin)}"
        return Finding(check=check, outcome=outcome, detail=detail)
    for part, name in _NAMES:
        if any(each.part == part for each in sample.differences):
            mine, theirs = (part_of(each.said, part) for each in (one, other))
            detail = f"the same {sample.compared_tokens} {sample.unit}, but the {name} is {mine!r} and {theirs!r}"
            return Finding(check=check, outcome="different", detail=detail)
    return Finding(check=check, outcome="equal", detail=f"{sample.compared_tokens} {sample.unit}")


def _protocol(baseline: Streamed, target: Streamed) -> Iterator[Finding]:
    ends = ["[DONE]" if each.is_done else "no [DONE]" for each in (baseline, target)]
    counts = [_usage(each) for each in (baseline, target)]
    for check, (mine, theirs) in (("end of the stream", ends), ("usage", counts)):
        outcome: Outcome = "equal" if mine == theirs else "different"
        yield Finding(check=check, outcome=outcome, detail=mine if mine == theirs else f"{mine} and {theirs}")


def _usage(streamed: Streamed) -> str:
    counted = streamed.counted_tokens
    came = sum(chunk.tokens for chunk in streamed.chunks)
    if counted is None:
        return "not told"
    return "counts the tokens that came" if counted == came or not came else f"counts {counted} tokens, {came} came"


def _exit(findings: list[Finding]) -> Exit:
    outcomes = {each.outcome for each in findings}
    if "different" in outcomes:
        return Exit.DIFFERENT
    return Exit.INCONCLUSIVE if outcomes & {"unclassified", "empty"} else Exit.PASS


def _notes(asked: tuple[Asked, ...], sampling: Sampling) -> Iterator[str]:
    for each in asked:
        if each.streamed.answer.unit == "words":
            yield f"--{each.name} gives neither token ids nor logprobs: words are compared"
        if not each.streamed.is_done:
            yield f"--{each.name} ends its stream without [DONE]"
    if not sampling.is_greedy:
        yield "answers are sampled: a difference may be chance and is not classified"


def _counts(asked: tuple[Asked, ...]) -> Iterator[str]:
    for each in asked:
        stream = _stream(each.streamed)
        yield (
            f"{each.name}: {stream['tokens']} tokens ({stream['reasoning_tokens']} of reasoning)"
            f" in {stream['chunks']} chunks, up to {stream['most_tokens_of_a_chunk']} in one"
        )


def _stream(streamed: Streamed) -> dict[str, Any]:
    return {
        "tokens": streamed.tokens,
        "reasoning_tokens": streamed.reasoning_tokens,
        "chunks": len(streamed.chunks),
        "most_tokens_of_a_chunk": max((chunk.tokens for chunk in streamed.chunks), default=0),
        "has_done": streamed.is_done,
        "counted_tokens": streamed.counted_tokens,
        "finish_reason": streamed.answer.finish_reason,
    }


def _timing(streamed: Streamed) -> dict[str, Any]:
    """Milliseconds; one stream has one time to the first token, but many gaps."""
    return {
        "first_token_ms": streamed.first_ms,
        "inter_token_ms": figures(streamed.gaps_ms()),
        "total_ms": streamed.answer.total_ms,
        "chunks_ms": [round(chunk.at_ms, 3) for chunk in streamed.chunks],
    }


def _rows(timing: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    rows: dict[str, Mapping[str, Any]] = {}
    for name, times in timing.items():
        first = times["first_token_ms"]
        rows[f"{name}: first token"] = figures([] if first is None else [first])
        rows[f"{name}: between tokens"] = times["inter_token_ms"]
        rows[f"{name}: whole answer"] = figures([times["total_ms"]])
    return rows
