"""reproducibility: does an engine give the same answer when asked again, one after the other and many at once?

Without --threshold a flip that the noise floor does not explain fails and ties pass. With it the share of runs equal to
their prompt's most frequent answer has to reach it, by Wilson's interval; 1 means that no run may differ. Two engines
are held against each other, too: the target may not differ from itself significantly more often than the baseline.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.engines import Engine, Question, engines
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import (
    access_of,
    add_access_flags,
    add_noise_flag,
    add_pair_flags,
    add_sampling_flags,
    between,
    needed,
    option,
    positive,
    sampling_of,
)
from ppd_acc.cli.given import url_of
from ppd_acc.cli.prompts import add_prompt_flags, prompts_of
from ppd_acc.compare.compare import compare_answers, noise_of
from ppd_acc.compare.decisions import decision_data, worst
from ppd_acc.compare.floors import is_flaky, measured_floor
from ppd_acc.data.report import Sample
from ppd_acc.experiments.repeats import (
    SCHEDULES,
    Repeated,
    Schedule,
    Tally,
    Told,
    ask_repeatedly,
    tally,
)
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.views import Progress, counted, nats, noise_line, percent
from ppd_accuracy.answers.flips import Floor
from ppd_accuracy.answers.said import EMPTY, sentence
from ppd_accuracy.statistics import gates

_NOISE_ANSWERS, _RUNS, _CONFIDENCE, _SHOWN = 12, 5, 0.95, 5
_SCHEDULES = (("both", SCHEDULES), ("sequential", SCHEDULES[:1]), ("at-once", SCHEDULES[1:]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", metavar="URL", help="one engine; instead of it --baseline and --target")
    add_pair_flags(parser)
    add_prompt_flags(parser, "asked again and again")
    parser.add_argument("--runs", type=positive, default=_RUNS, metavar="N", help=f"of every prompt (default {_RUNS})")
    parser.add_argument(
        "--threshold", type=between(0, 1), metavar="F", help="least share of runs equal to the most frequent answer"
    )
    parser.add_argument(
        "--schedule", choices=("both", "sequential", "at-once"), default="both",
        help="one run after the other, all at once (other batches), or both, as separate figures (default)",
    )  # fmt: skip
    parser.add_argument(
        "--confidence-level", type=between(0.5, 0.999999), default=_CONFIDENCE, metavar="F", help="default 0.95"
    )
    add_sampling_flags(parser)
    add_access_flags(parser, has_target=True)
    add_noise_flag(parser, _NOISE_ANSWERS)


async def run(args: argparse.Namespace, context: Context) -> Result:
    if args.runs < 2:
        raise Mistake("--runs is 1; give 2 or more, one answer has nothing to be equal to")
    urls = _urls(args, context)
    prompts = prompts_of(args, context.directory)
    sampling = sampling_of(args, context.settings)
    access = access_of(args, context.settings)
    access = replace(access, concurrency=max(access.concurrency, args.runs))
    count = option(args, context.settings, "noise_floor", _NOISE_ANSWERS)
    schedules: tuple[Schedule, ...] = dict(_SCHEDULES)[args.schedule]
    sides = ["" if name == "url" else name for name in urls]
    async with engines(access, *urls.values(), sides=sides) as opened:
        # Before the noise floor, so that the first run finds no prefix of its prompt in a cache.
        told = await _ask(opened, prompts, sampling, args.runs, schedules, context)
        questions = [Question(prompt=prompt) for prompt in prompts]
        floor = await measured_floor(opened[0], questions, sampling, count, context, next(iter(urls)))
    floor = floor.of_run(sum(map(len, told)) * len(prompts) * args.runs)
    tallies = [
        tally(name, schedule, prompts, part, sampling, floor)
        for name, parts in zip(urls, told, strict=True)
        for schedule, part in zip(schedules, parts, strict=True)
    ]
    silent = next((each for each in tallies if not each.answered), None)
    if silent is not None:
        raise Trouble(f"--{silent.engine}: no run was answered: {silent.errors[0]}")
    return with_model_notes(_result(tallies, floor, sampling, args.threshold, args.confidence_level), *opened)


def _urls(args: argparse.Namespace, context: Context) -> dict[str, str]:
    """Name to URL: one engine or two."""
    if args.url is not None:
        if args.baseline is not None or args.target is not None:
            raise Mistake("--url is one engine, --baseline and --target are two; give one or the other")
        return {"url": url_of("--url", args.url)}
    if option(args, context.settings, "baseline") is None:
        raise Mistake("--url is missing; give one engine, or --baseline and --target")
    return {side: needed(args, context.settings, side) for side in ("baseline", "target")}


async def _ask(
    opened: Sequence[Engine],
    prompts: Sequence[str],
    sampling: Sampling,
    runs: int,
    schedules: Sequence[Schedule],
    context: Context,
) -> list[list[list[list[Told]]]]:
    """By engine, schedule, prompt and run; the engines side by side, the schedules one after the other."""
    total = len(opened) * len(schedules) * len(prompts) * runs
    progress, done = Progress(context.errors, "reproducibility", total), 0

    def report() -> None:
        nonlocal done
        done += 1
        progress(done)

    async def one(engine: Engine) -> list[list[list[Told]]]:
        return [await ask_repeatedly(engine, prompts, sampling, runs, schedule, report) for schedule in schedules]

    return list(await asyncio.gather(*map(one, opened)))


def _result(
    tallies: Sequence[Tally], floor: Floor, sampling: Sampling, threshold: float | None, confidence: float
) -> Result:
    verdicts = list(_verdicts(tallies, threshold, confidence))
    errors = sum(len(each.errors) for each in tallies)
    code = worst(verdict.outcome for _, verdict in verdicts)
    if errors and code != Exit.DIFFERENT:
        code = Exit.INFRASTRUCTURE
    data = {
        "runs_per_prompt": tallies[0].prompts[0].runs,
        "confidence": confidence,
        "threshold": threshold,
        "figures": [_figures(each, confidence) for each in tallies],
        "verdicts": [{"of": name, **decision_data(verdict)} for name, verdict in verdicts],
        "between_schedules": list(_across(tallies, sampling, floor)),
        "noise": msgspec.to_builtins(noise_of(floor)),
    }
    lines = [Text(f"{verdict.outcome}: {name}: {verdict.reason}") for name, verdict in verdicts]
    if sampling.is_greedy and is_flaky(floor):
        again = f"{floor.flips} of {counted(floor.answers, 'answer')} came out differently when asked again"
        own = "" if tallies[0].engine == "url" else f"{tallies[0].engine}, "
        lines.insert(0, Text(f"not reproducible: {own}{again}; its own noise floor excuses nearly everything"))
    notes = []
    if errors:
        first = next(each.errors[0] for each in tallies if each.errors)
        notes.append(f"{counted(errors, 'run')} failed, the first: {first}")
    notes += [each["sentence"] for each in data["between_schedules"] if each["status"] not in ("equal", "tie")]
    return Result(
        exit=code, data=data, view=(*lines, _table(tallies, confidence), Text(noise_line(floor))), notes=tuple(notes)
    )


def _verdicts(
    tallies: Sequence[Tally], threshold: float | None, confidence: float
) -> Iterator[tuple[str, gates.Decision]]:
    for each in tallies:
        name = f"{each.engine}, {each.schedule}"
        if each.is_empty:
            yield name, gates.Decision(outcome="inconclusive", reason=EMPTY)
        elif threshold == 1:  # no interval shows that a share is 1, so this is about these runs alone
            outcome: gates.Outcome = "fail" if each.differing else "pass"
            reason = f"{each.differing} of {each.answered} runs differ, none may"
            yield name, gates.Decision(outcome=outcome, reason=reason)
        elif threshold is not None:
            yield name, gates.rate(each.differing, each.answered, 1 - threshold, confidence, "runs that differ")
        else:
            yield name, _by_margins(each)
    by_schedule = {(each.engine, each.schedule): each for each in tallies}
    schedules = [schedule for schedule in SCHEDULES if ("target", schedule) in by_schedule]
    for schedule in schedules:
        one, other = by_schedule["baseline", schedule], by_schedule["target", schedule]
        alpha = (1 - confidence) / len(schedules)
        decision = gates.unpaired(one.differing, one.answered, other.differing, other.answered, alpha)
        yield f"target against baseline, {schedule}", decision


def _by_margins(each: Tally) -> gates.Decision:
    real, tie, unclassified = (each.count(status) for status in ("real", "tie", "unclassified"))
    seen = f"{each.differing} of {each.answered} runs differ"
    if real:
        return gates.Decision(outcome="fail", reason=f"{seen}, {real} of them by more than the noise floor")
    if unclassified:
        return gates.Decision(outcome="inconclusive", reason=f"{seen}, {unclassified} of them not to be classified")
    return gates.Decision(outcome="pass", reason=f"{seen}, {tie} of them ties" if tie else seen)


def _figures(each: Tally, confidence: float) -> dict[str, Any]:
    share, interval = each.share(confidence)
    return {
        "engine": each.engine,
        "schedule": each.schedule,
        "answered": each.answered,
        "failed": len(each.errors),
        "differing": each.differing,
        **{status: each.count(status) for status in ("tie", "real", "unclassified")},
        "majority_share": share,
        "majority_interval": {"low": interval.low, "high": interval.high},
        "prompts": [_of_prompt(one) for one in each.prompts],
    }


def _of_prompt(one: Repeated) -> dict[str, Any]:
    return {
        "prompt": one.prompt,
        "answered": one.answered,
        "equal": one.equal,
        "distinct_answers": one.distinct,
        "majority": str(one.majority.said) if one.majority is not None else None,
        "statuses": [sample.status for sample in one.others],
        "first_differences": [flip.position for flip in one.flips],
        "margins": [[flip.baseline_margin, flip.target_margin] for flip in one.flips],
        "shifts": [flip.shift for flip in one.flips],
        "errors": list(one.errors),
    }


def _across(tallies: Sequence[Tally], sampling: Sampling, floor: Floor) -> Iterator[dict[str, Any]]:
    """The most frequent answers of one engine's schedules, and of both engines: do they agree?"""
    for number, one in enumerate(tallies):
        for other in tallies[number + 1 :]:
            if one.engine != other.engine and one.schedule != other.schedule:
                continue
            for mine, theirs in zip(one.prompts, other.prompts, strict=True):
                if mine.majority is None or theirs.majority is None:
                    continue
                question = Question(prompt=mine.prompt)
                sample = compare_answers(
                    "0", question, mine.majority, theirs.majority, floor, is_greedy=sampling.is_greedy
                )
                names = [f"{each.engine}, {each.schedule}" for each in (one, other)]
                yield {
                    "between": names,
                    "prompt": mine.prompt,
                    "status": sample.status,
                    "first_difference": sample.first_divergence,
                    "differences": msgspec.to_builtins(sample.differences),
                    "sentence": f"most frequent answers of {names[0]} and {names[1]}: {_where(sample)}"
                    f" of prompt {mine.prompt[:40]!r}",
                }


def _where(sample: Sample) -> str:
    if sample.status == "empty":
        return "empty answers"
    place = sentence(sample.differences)
    if sample.flip is not None:
        place = f"{sample.unit[:-1]} {sample.flip.position}"
    return f"{sample.status} difference at {place}"


def _table(tallies: Sequence[Tally], confidence: float) -> Table:
    table = Table(title="Runs equal to their prompt's most frequent answer", title_justify="left")
    for column in ("engine", "runs"):
        table.add_column(column)
    for column in ("equal", "share", f"{confidence:.0%} interval", "ties", "real", "unclassified", "failed"):
        table.add_column(column, justify="right")
    table.add_column("first differences (token, shift)")
    for each in tallies:
        share, interval = each.share(confidence)
        flips = [f"{flip.position} ({nats(flip.shift)})" for one in each.prompts for flip in one.flips]
        table.add_row(
            each.engine, each.schedule, f"{each.answered - each.differing} of {each.answered}", percent(share),
            f"{percent(interval.low)} to {percent(interval.high)}",
            *(str(each.count(status)) for status in ("tie", "real", "unclassified")), str(len(each.errors)),
            ", ".join(flips[:_SHOWN]) + (", ..." if len(flips) > _SHOWN else ""),
        )  # fmt: skip
    return table


COMMANDS = (Command(name="reproducibility", add_arguments=add_arguments, run=run),)
