"""fingerprint: which model answers here? A fixed set of probes, greedily answered, comes to a digest.

The same digest is the same model in all that the probes show. Another digest need not be another model: a near tie
flips with the noise. So two engines are compared token by token, and judged against the noise floor.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_acc.ask.access import Sampling, Terms
from ppd_acc.ask.answers import Answer, identity
from ppd_acc.ask.engines import Engine, engines_by_side
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.ask.question import Question
from ppd_acc.cli.flags import SIDES, add_access_flags, add_noise_flag, add_pair_flags, terms_of, whole_number_of
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flags
from ppd_acc.compare.compare import compare_answers, noise_of
from ppd_acc.compare.floors import terms_floor
from ppd_acc.compare.pools import judge_together, verdict_data
from ppd_acc.compare.positions import DEFAULT_ALPHA
from ppd_acc.data.report import Sample
from ppd_acc.outcome import Exit, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import noise_line, number
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.answers.said import sentence

PROBES = (
    "The capital of Australia is",
    "Count from one to twenty in words.",
    "What is 37 times 43? Answer with the number only.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Translate into French: The weather is nice today.",
    'Answer with JSON only: {"city": "Paris", "country":',
    "List the planets of the solar system in order.",
    "Finish the proverb: A rolling stone",
    "Explain in one sentence why the sky is blue.",
    "用一句话介绍你自己。",
    "Repeat exactly: zxqj-4481-ÄÖÜ-\U0001f98a",
    "Write a haiku about an old clock.",
)
"""Never changed without changing VERSION: digests of different sets say nothing of each other."""
VERSION = 2
NOTHING_SAID = "every answer was empty: the digests say nothing"
_DECIMALS = 2
_MAX_TOKENS = 32
_DEPTH = 5


def _urls(given: Given) -> dict[str, str]:
    """The target may be left out."""
    sides = SIDES if given.option("target") is not None else SIDES[:1]
    return {side: given.needed(side) for side in sides}


def _terms(given: Given) -> Terms:
    max_tokens = given.option("max_tokens", _MAX_TOKENS)
    sampling = Sampling(temperature=0.0, top_p=1.0, seed=42, top_k=_DEPTH, max_tokens=max_tokens)
    return replace(terms_of(len(PROBES), given), sampling=sampling)


def _add_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-tokens", type=whole_number_of("max_tokens"), metavar="N",
        help=f"tokens per probe (default {_MAX_TOKENS}); part of the digest"
    )
    add_access_flags(parser, has_target=True)
    add_noise_flag(parser, len(PROBES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    urls: Mapping[str, str] = flags(add_pair_flags, _urls)
    terms: Terms = flags(_add_terms, _terms)


async def run(options: Options, surroundings: Surroundings) -> Result:
    terms, has_target = options.terms, len(options.urls) > 1
    if not has_target:
        terms = replace(terms, noise_answers=0)
    async with engines_by_side(terms.access, options.urls) as asked:
        answers = await asyncio.gather(*(_answers(engine, terms.sampling) for engine in asked))
        prints = [
            {"url": engine.url, "model": await engine.model(), "version": await engine.version(), **_print_of(each)}
            for engine, each in zip(asked, answers, strict=True)
        ]
        floor = (await terms_floor(asked[0], _QUESTIONS, terms, surroundings)).of_run(len(PROBES))
    head = {"probes_version": VERSION, "max_tokens": terms.sampling.max_tokens, "baseline": prints[0]}
    if has_target:
        return with_model_notes(_compared(head, prints, answers, floor), *asked)
    if all(answer.is_empty for answer in answers[0]):
        return Result(exit=Exit.INCONCLUSIVE, data=head, view=(f"empty: {NOTHING_SAID}", _table(prints)))
    return Result(exit=Exit.PASS, data=head, view=(_table(prints),))


_QUESTIONS = tuple(Question(prompt=probe) for probe in PROBES)


async def _answers(engine: Engine, sampling: Sampling) -> list[Answer]:
    return list(await asyncio.gather(*(engine.ask(question, sampling) for question in _QUESTIONS)))


def _print_of(answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "tokens_digest": tokens_digest(answers),
        "logprobs_digest": logprobs_digest(answers),
        "unit": "tokens" if all(answer.unit == "tokens" for answer in answers) else "words",
        "probes": [
            {
                "prompt": prompt, "text": answer.text, "reasoning": answer.reasoning, "tool_calls": answer.tool_calls,
                "finish_reason": answer.finish_reason, "tokens": answer.tokens, "logprobs": answer.logprobs,
            }
            for prompt, answer in zip(PROBES, answers, strict=True)
        ],
    }


def tokens_digest(answers: Sequence[Answer]) -> str:
    """SHA-256 of all answers and their tokens, each answer set apart from the next. Names of tokens are not in it: the
    same answer in other pieces is the same."""
    return _digest([identity(answer) for answer in answers])


def logprobs_digest(answers: Sequence[Answer]) -> str | None:
    """The same of the logprobs, rounded; None where an engine tells none. Noise near a rounding edge changes it: equal
    digests say much, different ones little."""
    if not all(answer.logprobs for answer in answers):
        return None
    return _digest([[_rounded(each) for each in answer.logprobs] for answer in answers])


def _rounded(logprob: float | None) -> int | None:
    return None if logprob is None else round(logprob * 10**_DECIMALS)


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def _compared(
    head: dict[str, Any], prints: list[dict[str, Any]], answers: Sequence[Sequence[Answer]], floor: ReplayNoise
) -> Result:  # fmt: skip
    pairs = list(zip(answers[0], answers[1], strict=True))
    samples = [
        compare_answers(str(place), question, one, other, floor, is_greedy=True)
        for place, (question, (one, other)) in enumerate(zip(_QUESTIONS, pairs, strict=True))
    ]
    verdict = judge_together(samples, floor, alpha=DEFAULT_ALPHA)
    code, reasons = verdict.exit, list(verdict.reasons)
    if any(one.prompt_token_ids != other.prompt_token_ids for one, other in pairs if _told_prompts(one, other)):
        code = Exit.DIFFERENT
        reasons.insert(0, "the probes have other tokens on the target: tokenizer or chat template differ")
    outcome = "empty" if verdict.is_empty and code == Exit.INCONCLUSIVE else _OUTCOMES[code]
    lines: list[RenderableType] = [f"{outcome}: {reason}" for reason in reasons]
    lines += [_table(prints), _probes(samples), noise_line(floor)]
    is_same = prints[0]["tokens_digest"] == prints[1]["tokens_digest"]
    notes = () if is_same or code != Exit.PASS else ("the digests differ by near ties only, within the noise",)
    data = {
        **head, "target": prints[1], "is_same_digest": is_same, "reasons": reasons, "alpha": DEFAULT_ALPHA,
        "verdict": verdict_data(verdict), "noise": msgspec.to_builtins(noise_of(floor)),
        "comparisons": [
            {"probe": place, "status": sample.status, "flip": msgspec.to_builtins(sample.flip),
             "differences": msgspec.to_builtins(sample.differences), "max_delta": sample.max_delta}
            for place, sample in enumerate(samples)
        ],
    }  # fmt: skip
    return Result(exit=code, data=data, view=tuple(lines), notes=notes)


_OUTCOMES = ("same", "different", "usage", "trouble", "unclassified")


def _told_prompts(one: Answer, other: Answer) -> bool:
    return one.prompt_token_ids is not None and other.prompt_token_ids is not None


def _table(prints: Sequence[dict[str, Any]]) -> Table:
    table = Table("URL", "model", "version", "digest of tokens", "digest of logprobs")
    for each in prints:
        logprobs = each["logprobs_digest"]
        table.add_row(
            each["url"], each["model"], each["version"] or "-", each["tokens_digest"][:16], (logprobs or "-")[:16]
        )
    return table


def _probes(samples: Sequence[Sample]) -> Table:
    table = Table("probe", "prompt", "status", "first difference", "largest |delta|")
    for place, sample in enumerate(samples):
        at = sample.place or sentence(sample.differences) or "-"
        prompt = Text((sample.prompt or "")[:48])
        table.add_row(str(place), prompt, sample.status, Text(at), number(sample.max_delta))
    return table
