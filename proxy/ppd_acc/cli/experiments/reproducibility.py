"""reproducibility: does an engine give the same answer when asked again, one after the other and many at once?

Without --threshold a flip that the noise floor does not explain fails and ties pass. With it the share of runs equal to
their prompt's most frequent answer has to reach it, by Wilson's interval; 1 means that no run may differ. Two engines
are held against each other, too: the target may not differ from itself significantly more often than the baseline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import msgspec
from rich.table import Table

from ppd_acc.ask.access import Sampling, Terms
from ppd_acc.ask.engines import Engine, engines
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.ask.question import Question
from ppd_acc.cli.flags import add_pair_flags, between, confidence_flag, positive, terms_flags, urls_of
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags, value
from ppd_acc.cli.prompts import prompts_flags
from ppd_acc.compare.compare import compare_answers, noise_of
from ppd_acc.compare.decisions import decision_data, worst
from ppd_acc.compare.floors import is_flaky, measured_floor
from ppd_acc.data.report import Sample
from ppd_acc.experiments.repeats import SCHEDULES, Repeated, Schedule, Tally, Told, ask_repeatedly, tally
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress, counted, nats, noise_line, numbers_table, percent, span
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.answers.said import EMPTY, sentence
from ppd_accuracy.statistics import gates

_NOISE_ANSWERS, _RUNS, _SHOWN = 12, 5, 5
_SCHEDULES = (("both", SCHEDULES), ("sequential", SCHEDULES[:1]), ("at-once", SCHEDULES[1:]))


def _urls(given: Given) -> dict[str, str]:
    """Name to URL: one engine or two."""
    url = given.url("url")
    if url is not None:
        if given.flag("baseline") is not None or given.flag("target") is not None:
            raise Mistake("--url is one engine, --baseline and --target are two; give one or the other")
        return {"url": url}
    if given.option("baseline") is None:
        raise Mistake("--url is missing; give one engine, or --baseline and --target")
    return urls_of(given)


def _runs(given: Given) -> int:
    runs: int = given.flag("runs")
    if runs < 2:
        raise Mistake("--runs is 1; give 2 or more, one answer has nothing to be equal to")
    return runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    url: str | None = value("URL", "one engine; instead of it --baseline and --target")
    urls: Mapping[str, str] = flags(add_pair_flags, _urls)
    prompts: Sequence[str] = prompts_flags("asked again and again")
    runs: int = value("N", "of every prompt", positive, _RUNS, read=_runs)
    threshold: float | None = value("F", "least share of runs equal to the most frequent answer", between(0, 1))
    schedules: Sequence[Schedule] = flag(
        "--schedule", choices=("both", "sequential", "at-once"), default="both",
        help="one run after the other, all at once (other batches), or both, as separate figures (default)",
        read=lambda given: dict(_SCHEDULES)[given.flag("schedule")],
    )  # fmt: skip
    confidence_level: float = confidence_flag("default 0.95")
    terms: Terms = terms_flags(_NOISE_ANSWERS)


async def run(options: Options, surroundings: Surroundings) -> Result:
    terms, prompts = options.terms, options.prompts
    access = replace(terms.access, concurrency=max(terms.access.concurrency, options.runs))
    sides = ["" if name == "url" else name for name in options.urls]
    async with engines(access, *options.urls.values(), sides=sides) as opened:
        # Before the noise floor, so that the first run finds no prefix of its prompt in a cache.
        answers = await _ask(opened, options, surroundings)
        questions = [Question(prompt=prompt) for prompt in prompts]
        floor = await measured_floor(opened[0], questions, terms, surroundings, next(iter(options.urls)))
    floor = floor.of_run(sum(map(len, answers)) * len(prompts) * options.runs)
    tallies = [
        tally(name, schedule, prompts, part, terms.sampling, floor)
        for name, parts in zip(options.urls, answers, strict=True)
        for schedule, part in zip(options.schedules, parts, strict=True)
    ]
    silent = next((each for each in tallies if not each.answered), None)
    if silent is not None:
        raise Trouble(f"--{silent.engine}: no run was answered: {silent.errors[0]}")
    return with_model_notes(_result(tallies, floor, options), *opened)


async def _ask(opened: Sequence[Engine], options: Options, surroundings: Surroundings) -> list[list[list[list[Told]]]]:
    """By engine, schedule, prompt and run; the engines side by side, the schedules one after the other."""
    prompts, runs = options.prompts, options.runs
    total = len(opened) * len(options.schedules) * len(prompts) * runs
    progress = Progress(surroundings.errors, "reproducibility", total)

    async def one(engine: Engine) -> list[list[list[Told]]]:
        return [
            await ask_repeatedly(engine, prompts, options.terms.sampling, runs, schedule, progress.step)
            for schedule in options.schedules
        ]

    return list(await asyncio.gather(*map(one, opened)))


def _result(tallies: Sequence[Tally], floor: ReplayNoise, options: Options) -> Result:
    sampling, threshold, confidence = options.terms.sampling, options.threshold, options.confidence_level
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
    lines = [f"{verdict.outcome}: {name}: {verdict.reason}" for name, verdict in verdicts]
    if sampling.is_greedy and is_flaky(floor):
        again = f"{floor.flips} of {counted(floor.answers, 'answer')} came out differently when asked again"
        own = "" if tallies[0].engine == "url" else f"{tallies[0].engine}, "
        lines.insert(0, f"not reproducible: {own}{again}; its own noise floor excuses nearly everything")
    notes = []
    if errors:
        first = next(each.errors[0] for each in tallies if each.errors)
        notes.append(f"{counted(errors, 'run')} failed, the first: {first}")
    notes += [each["sentence"] for each in data["between_schedules"] if each["status"] not in ("equal", "tie")]
    return Result(
        exit=code, data=data, view=(*lines, _table(tallies, confidence), noise_line(floor)), notes=tuple(notes)
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
        "majority_interval": interval._asdict(),
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


def _across(tallies: Sequence[Tally], sampling: Sampling, floor: ReplayNoise) -> Iterator[dict[str, Any]]:
    """The most frequent answers of one engine's schedules, and of both engines: do they agree?"""
    for one, other in combinations(tallies, 2):
        if one.engine != other.engine and one.schedule != other.schedule:
            continue
        names = [f"{each.engine}, {each.schedule}" for each in (one, other)]
        for mine, theirs in zip(one.prompts, other.prompts, strict=True):
            if mine.majority is None or theirs.majority is None:
                continue
            question = Question(prompt=mine.prompt)
            sample = compare_answers("0", question, mine.majority, theirs.majority, floor, is_greedy=sampling.is_greedy)
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
    return f"{sample.status} difference at {sample.place or sentence(sample.differences)}"


def _table(tallies: Sequence[Tally], confidence: float) -> Table:
    figures = ("equal", "share", f"{confidence:.0%} interval", "ties", "real", "unclassified", "failed")
    table = numbers_table(("engine", "runs"), figures, "Runs equal to their prompt's most frequent answer")
    table.add_column("first differences (token, shift)")
    for each in tallies:
        share, interval = each.share(confidence)
        flips = [f"{flip.position} ({nats(flip.shift)})" for one in each.prompts for flip in one.flips]
        table.add_row(
            each.engine, each.schedule, f"{each.answered - each.differing} of {each.answered}", percent(share),
            span(*interval), *(str(each.count(status)) for status in ("tie", "real", "unclassified")),
            str(len(each.errors)), ", ".join(flips[:_SHOWN]) + (", ..." if len(flips) > _SHOWN else ""),
        )  # fmt: skip
    return table
