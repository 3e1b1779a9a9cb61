"""compare-output: the same prompt on two engines, or two texts; are the answers the same?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ppd_acc.ask.access import Terms
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import engines_by_side
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.ask.question import Question
from ppd_acc.cli.flags import SIDES, add_pair_flags, add_terms_flags, asked_prompt, prompt_text, terms_of, urls_of
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flags
from ppd_acc.compare.broken_numbers import broken_sentence
from ppd_acc.compare.compare import compare, compare_answers, noise_of
from ppd_acc.compare.floors import terms_floor
from ppd_acc.data.report import Sample
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import nats, noise_line
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.answers.said import EMPTY, part_of, sentence

_NOISE_ANSWERS = 8


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pair_flags(parser)
    parser.add_argument("--prompt", type=prompt_text, metavar="TEXT", help="asked on both engines")
    for side in SIDES:
        group = parser.add_mutually_exclusive_group()
        group.add_argument(f"--{side}-text", metavar="TEXT", help=f"instead of asking: the {side}'s answer")
        group.add_argument(f"--{side}-file", metavar="FILE", help="the same, from a file (UTF-8)")
    add_terms_flags(_NOISE_ANSWERS, parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    prompt: str
    urls: Mapping[str, str]
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    baseline: str
    target: str


def _what(given: Given) -> Asked | Texts:
    baseline, target = (_text(given, side) for side in SIDES)
    if baseline is not None and target is not None:
        return Texts(baseline=baseline, target=target)
    if baseline is not None or target is not None:
        raise Mistake("only one text is given; give --baseline-text and --target-text (or -file), or two URLs")
    return Asked(prompt=asked_prompt(given), urls=urls_of(given), terms=terms_of(_NOISE_ANSWERS, given))


def _text(given: Given, side: str) -> str | None:
    path = given.path(f"{side}_file")
    try:
        text: str | None = given.flag(f"{side}_text") if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"--{side}-file {path}: {error}") from None
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    what: Asked | Texts = flags(_add_arguments, _what)


async def run(options: Options, surroundings: Surroundings) -> Result:
    what = options.what
    if isinstance(what, Texts):
        texts = (what.baseline, what.target)
        ones, others = (Answer(text=text, tokens=[*text.split()], unit="words") for text in texts)
        return _result_of_texts(compare_answers("0", Question(), ones, others, ReplayNoise(), is_greedy=True))
    question, terms = Question(prompt=what.prompt), what.terms
    async with engines_by_side(terms.access, what.urls) as (baseline, target):
        floor = await terms_floor(baseline, [question], terms, surroundings)
        sample = await compare(baseline, target, "0", question, terms.sampling, floor)
    if sample.error is not None:
        raise Trouble(f"--{sample.failed}: {sample.error}")
    return with_model_notes(result_of(sample, floor), baseline, target)


def _result_of_texts(sample: Sample) -> Result:
    """Equal, different, or both empty: nothing tells whether healthy engines would differ there, too."""
    code = {"equal": Exit.PASS, "empty": Exit.INCONCLUSIVE}.get(sample.status, Exit.DIFFERENT)
    place = f"word {sample.flip.position} is the first that differs" if sample.flip is not None else "not in the words"
    what = f"different: {place}" if code == Exit.DIFFERENT else headline(sample)
    return Result(exit=code, data=_data(sample, ReplayNoise()), view=(what, *_both(sample)))


def _both(sample: Sample) -> Iterator[str]:
    """Each part that differs, and the contents where only tokens do."""
    parts = [each.part for each in sample.differences] or (["content"] if sample.flip is not None else [])
    for part in parts:
        label = "" if part == "content" else f" {part.replace('_', ' ')}"
        for name, side in (("baseline", sample.baseline), ("target", sample.target)):
            yield f"{f'{name}{label}:':{len(f'baseline{label}:')}} {part_of(side.said, part)!r}"


def result_of(sample: Sample, floor: ReplayNoise) -> Result:
    """How a single comparison ends: ties and equal answers pass, what could not be classified is inconclusive, and so
    are two empty answers, but texts that nobody can explain are different."""
    code = {"equal": Exit.PASS, "tie": Exit.PASS, "real": Exit.DIFFERENT}.get(sample.status, Exit.INCONCLUSIVE)
    if sample.is_unexplained:
        code = Exit.DIFFERENT
    lines = [headline(sample), noise_line(floor), *_both(sample)]
    return Result(exit=code, data=_data(sample, floor), view=tuple(lines))


def _data(sample: Sample, floor: ReplayNoise) -> dict[str, Any]:
    return {"sample": msgspec.to_builtins(sample), "noise": msgspec.to_builtins(noise_of(floor))}


def headline(sample: Sample) -> str:
    """One line: where two answers part, and what that is taken for."""
    if sample.flip is None:
        compared = f"{sample.compared_tokens} {sample.unit}"
        apart = [*filter(None, (broken_sentence(sample), sentence(sample.differences)))]
        if sample.status == "empty":
            return f"empty: {'; '.join((EMPTY, *apart))}"
        return f"{sample.status}: the same {compared}, but {'; '.join(apart)}" if apart else f"equal: {compared}"
    flip = sample.flip
    margins = ""
    if flip.shift is not None:
        margins = (
            f"; margins {nats(flip.baseline_margin)} and {nats(flip.target_margin)}, shift"
            f" {'at least ' if flip.is_bound else ''}{nats(flip.shift)}"
        )
    reasons = [*sample.tags, *filter(None, (broken_sentence(sample),))]
    why = f" ({', '.join(reasons)})" if reasons else ""
    others = [each for each in sample.differences if each.part != "content"]
    also = f"; {sentence(others)}" if others else ""
    return f"{sample.status}{why}: {sample.place} is the first that differs{margins}{also}"
