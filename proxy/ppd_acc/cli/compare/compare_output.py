"""compare-output: the same prompt on two engines, or two texts; are the answers the same?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.text import Text

from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import Question, engines
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import (
    access_of,
    add_access_flags,
    add_noise_flag,
    add_pair_flags,
    add_sampling_flags,
    needed,
    option,
    prompt_text,
    sampling_of,
)
from ppd_acc.compare.broken_numbers import broken_sentence
from ppd_acc.compare.compare import compare, compare_answers, noise_floor, noise_of
from ppd_acc.data.report import Sample
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.views import Progress, nats, noise_line
from ppd_accuracy.answers.flips import Floor
from ppd_accuracy.answers.said import EMPTY, part_of, sentence

_NOISE_ANSWERS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pair_flags(parser)
    parser.add_argument("--prompt", type=prompt_text, metavar="TEXT", help="asked on both engines")
    for side in ("baseline", "target"):
        group = parser.add_mutually_exclusive_group()
        group.add_argument(f"--{side}-text", metavar="TEXT", help=f"instead of asking: the {side}'s answer")
        group.add_argument(f"--{side}-file", metavar="FILE", help="the same, from a file (UTF-8)")
    add_sampling_flags(parser)
    add_access_flags(parser, has_target=True)
    add_noise_flag(parser, _NOISE_ANSWERS)


async def run(args: argparse.Namespace, context: Context) -> Result:
    texts = [_given(args, side) for side in ("baseline", "target")]
    if all(text is not None for text in texts):
        ones, others = (Answer(text=text or "", tokens=[*(text or "").split()], unit="words") for text in texts)
        sample = compare_answers("0", Question(), ones, others, Floor(), is_greedy=True)
        return _result_of_texts(sample)
    if any(text is not None for text in texts):
        raise Mistake("only one text is given; give --baseline-text and --target-text (or -file), or two URLs")
    if args.prompt is None:
        raise Mistake("--prompt is missing; give the text that both engines are asked")
    urls = [needed(args, context.settings, side) for side in ("baseline", "target")]
    sampling = sampling_of(args, context.settings)
    count = option(args, context.settings, "noise_floor", _NOISE_ANSWERS)
    question = Question(prompt=args.prompt)
    async with engines(access_of(args, context.settings), *urls, sides=("baseline", "target")) as (baseline, target):
        progress = Progress(context.errors, "noise floor", count)
        floor = await noise_floor(baseline, [question], sampling, count, progress)
        sample = await compare(baseline, target, "0", question, sampling, floor)
    if sample.error is not None:
        raise Trouble(f"--{sample.failed}: {sample.error}")
    return with_model_notes(result_of(sample, floor), baseline, target)


def _result_of_texts(sample: Sample) -> Result:
    """Equal, different, or both empty: nothing tells whether healthy engines would differ there, too."""
    code = {"equal": Exit.PASS, "empty": Exit.INCONCLUSIVE}.get(sample.status, Exit.DIFFERENT)
    place = f"word {sample.flip.position} is the first that differs" if sample.flip is not None else "not in the words"
    what = f"different: {place}" if code == Exit.DIFFERENT else headline(sample)
    return Result(
        exit=code,
        data={"sample": msgspec.to_builtins(sample), "noise": msgspec.to_builtins(noise_of(Floor()))},
        view=(Text(what), *_both(sample)),
    )


def _both(sample: Sample) -> Iterator[Text]:
    """Each part that differs, and the contents where only tokens do."""
    parts = [each.part for each in sample.differences] or (["content"] if sample.flip is not None else [])
    for part in parts:
        label = "" if part == "content" else f" {part.replace('_', ' ')}"
        for name, side in (("baseline", sample.baseline), ("target", sample.target)):
            yield Text(f"{f'{name}{label}:':{len(f'baseline{label}:')}} {part_of(side.said, part)!r}")


def result_of(sample: Sample, floor: Floor) -> Result:
    """How a single comparison ends: ties and equal answers pass, what could not be classified is inconclusive, and so
    are two empty answers, but texts that nobody can explain are different."""
    code = {"equal": Exit.PASS, "tie": Exit.PASS, "real": Exit.DIFFERENT}.get(sample.status, Exit.INCONCLUSIVE)
    if sample.is_unexplained:
        code = Exit.DIFFERENT
    lines = [Text(headline(sample)), Text(noise_line(floor)), *_both(sample)]
    data = {"sample": msgspec.to_builtins(sample), "noise": msgspec.to_builtins(noise_of(floor))}
    return Result(exit=code, data=data, view=tuple(lines))


def headline(sample: Sample) -> str:
    """One line: where two answers part, and what that is taken for."""
    if sample.flip is None:
        compared = f"{sample.compared_tokens} {sample.unit}"
        found = [*filter(None, (broken_sentence(sample), sentence(sample.differences)))]
        if sample.status == "empty":
            return f"empty: {'; '.join((EMPTY, *found))}"
        return f"{sample.status}: the same {compared}, but {'; '.join(found)}" if found else f"equal: {compared}"
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
    return f"{sample.status}{why}: {sample.unit[:-1]} {flip.position} is the first that differs{margins}{also}"


def _given(args: argparse.Namespace, side: str) -> str | None:
    text, file = getattr(args, f"{side}_text"), getattr(args, f"{side}_file")
    if file is None:
        return None if text is None else str(text)
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"--{side}-file {file}: {error}") from None


COMMANDS = (Command(name="compare-output", add_arguments=add_arguments, run=run),)
