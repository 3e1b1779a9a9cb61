"""bisect: from which prompt length, or from how many requests at once, do two engines part? Or at block boundaries?

Statistical: several cuts of the prompt at each length, a logistic fit, and the next length where it tells most. With
--over blocks, lengths just below, at and just above multiples of a block are compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from rich.table import Table

from ppd_acc.ask.access import Terms
from ppd_acc.ask.engines import EngineTrouble, engines_by_side
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.cli.flags import between, pair_flags, positive, prompt_text, terms_flags
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import derived, flag, switch, value
from ppd_acc.cli.prompts import read_text
from ppd_acc.compare.compare import noise_of
from ppd_acc.compare.floors import measured_floor
from ppd_acc.experiments.cuts import Cuts, cuts_of
from ppd_acc.experiments.trials import Step, Trials, boundaries
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress, counted, empty_too, noise_line, numbers_table, percent, span
from ppd_accuracy.answers.said import EMPTY
from ppd_accuracy.statistics import dose, significance
from ppd_accuracy.statistics.intervals import wilson

Found = Literal["threshold", "boundary", "always", "never", "not monotone", "unclear"]
_NOISE_ANSWERS, _REPEATS, _BLOCK, _BOUNDARIES, _MOST_RUNS, _LEVELS = 12, 5, 16, 5, 200, 16
_CONFIDENCE = 0.95
_EXITS: tuple[tuple[Found, Exit], ...] = (
    ("threshold", Exit.DIFFERENT), ("boundary", Exit.DIFFERENT), ("always", Exit.DIFFERENT), ("never", Exit.PASS),
    ("not monotone", Exit.INCONCLUSIVE), ("unclear", Exit.INCONCLUSIVE),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`sentence` is for people; `threshold` is the fit over lengths or requests at once, `offsets` what was found at
    block boundaries."""

    found: Found
    sentence: str
    threshold: dose.Threshold | None = None
    offsets: tuple[dict[str, Any], ...] = ()


def _prompt(given: Given) -> str:
    text, path = given.flag("prompt"), given.path("prompt_file")
    if (text is None) == (path is None):
        raise Mistake("give one text that is cut, as --prompt or as --prompt-file")
    prompt: str = text if path is None else read_text(path, "--prompt-file")
    if not prompt.split():
        raise Mistake("--prompt is empty; give a text that can be cut")
    return prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    urls: Mapping[str, str] = pair_flags()
    prompt: str = value("TEXT", "what is cut to a length", prompt_text, read=_prompt)
    prompt_file: str | None = value("FILE", "the same, from a file (UTF-8)")
    over: str = flag(choices=("length", "concurrency", "blocks"), default="length", help="default length")
    min_length: int = flag(type=positive, default=1, metavar="N", help="tokens (default 1)")
    max_length: int | None = value(
        "N", "tokens (default: the whole prompt); where it is longer than the prompt, that begins again", positive
    )
    repeats: int = flag(type=positive, default=_REPEATS, metavar="N", help=f"a length ({_REPEATS})")
    max_runs: int = flag(type=positive, default=_MOST_RUNS, metavar="N", help=f"in all ({_MOST_RUNS})")
    max_level: int = value("N", "requests at once, with --over concurrency", positive, _LEVELS)
    block_size: int = value("N", "tokens", positive, _BLOCK)
    share: float = flag(
        type=between(0.01, 0.99), default=0.5, metavar="F", help="of runs that diverge at the threshold (0.5)"
    )
    same_prompt: bool = switch("every cut of a length is the prompt's beginning")
    count: str = flag(
        choices=("real", "all"), default="real",
        help="which differences count: those that the noise floor does not explain (default), or all",
    )  # fmt: skip
    terms: Terms = terms_flags(_NOISE_ANSWERS)
    wants_text: bool = derived(lambda given: given.flag("endpoint") == "chat")


async def run(options: Options, surroundings: Surroundings) -> Result:
    terms, access = options.terms, options.terms.access
    if options.over == "concurrency":
        access = replace(access, concurrency=max(access.concurrency, options.max_level))
    async with engines_by_side(access, options.urls) as (baseline, target):
        try:
            cuts, reason = await cuts_of(baseline, options.prompt, terms.sampling, wants_text=options.wants_text)
            cuts = replace(cuts, is_same=options.same_prompt)
            notes = [reason] if reason is not None else []
            if options.over == "blocks" and cuts.unit != "tokens":
                raise Mistake(f"--over blocks needs lengths in tokens, but {reason}")
            shortest, longest = options.min_length, _longest(options, cuts, notes)
            lengths = [length for length in (shortest, (shortest + longest) // 2, longest) if length]
            questions = [cuts.question(length, 0) for length in lengths]
        except EngineTrouble as trouble:
            raise Trouble(f"--baseline: {trouble}") from None
        floor = (await measured_floor(baseline, questions, terms, surroundings)).of_run(options.max_runs)
        if not floor.answers and options.count == "real":
            notes.append("without a noise floor no difference is real: all of them count (--count all)")
        trials = Trials(
            baseline=baseline,
            target=target,
            cuts=cuts,
            sampling=terms.sampling,
            floor=floor,
            counts_all=options.count == "all" or not floor.answers,
            most_errors=max(2, options.repeats),
            report=Progress(surroundings.errors, f"bisect over {options.over}, at most", options.max_runs).step,
        )
        verdict = await _search(options, trials, longest)
    return with_model_notes(_result(options, verdict, trials, longest, notes), baseline, target)


def _longest(options: Options, cuts: Cuts, notes: list[str]) -> int:
    """The greatest length. Raises Mistake where no length is left between the two."""
    longest = options.max_length or cuts.length
    if longest > cuts.length:
        notes.append(f"the prompt has {cuts.length} {cuts.unit}: beyond that it begins again")
    if options.over != "concurrency" and longest <= options.min_length:
        raise Mistake(
            f"--max-length is {longest} and --min-length {options.min_length}; the first must be greater (the prompt"
            f" has {cuts.length} {cuts.unit})"
        )
    return longest


async def _search(options: Options, trials: Trials, longest: int) -> Verdict:
    seed = options.terms.sampling.seed
    if options.over == "blocks":
        return await _over_blocks(options, trials, longest)
    is_length = options.over == "length"
    lowest, highest = (options.min_length, longest) if is_length else (1, options.max_level)
    if highest <= lowest:
        raise Mistake(f"--max-level is {highest}; it must be 2 or more")
    design = dose.Design(
        lowest=lowest, highest=highest, target=options.share, confidence=_CONFIDENCE, repeats=options.repeats,
        most_runs=options.max_runs,
    )  # fmt: skip
    while True:
        step = dose.next_dose(trials.tried(), design, seed)
        if step.dose is None or (step.dose in trials.steps and _is_everywhere(trials, options.share)):
            break
        if is_length:
            await trials.at_length(step.dose, options.repeats)
        else:
            await trials.at_once(step.dose, longest, options.repeats)
    threshold = dose.fit(trials.tried(), options.share, _CONFIDENCE, seed)
    return judge(trials, threshold, step.reason, "tokens" if is_length else "requests at once")


def judge(trials: Trials, threshold: dose.Threshold | None, reason: str, what: str) -> Verdict:
    """What the trials over lengths or requests at once come to."""
    plain = _all_or_nothing(trials)
    if plain is not None:
        return replace(plain, threshold=threshold)
    if threshold is None:
        return Verdict(found="unclear", sentence="a single length was tried")
    if _is_everywhere(trials, threshold.target):
        runs, diverged = (sum(each[part] for each in trials.tried()) for part in (1, 2))
        sentence = f"more than {percent(threshold.target)} diverge everywhere, {diverged} of {runs} in all"
        return Verdict(found="always", sentence=sentence, threshold=threshold)
    if threshold.monotone_p < 1 - _CONFIDENCE:
        sentence = f"the share that diverges does not rise with the {what} (p {threshold.monotone_p:.3g}): no threshold"
        return Verdict(found="not monotone", sentence=sentence, threshold=threshold)
    if threshold.dose is None or threshold.is_extrapolated or threshold.dependence_p > 1 - _CONFIDENCE:
        sentence = f"some diverge, but no threshold shows (dependence p {threshold.dependence_p:.3g}); ended: {reason}"
        return Verdict(found="unclear", sentence=sentence, threshold=threshold)
    low, high = (f"{end:.4g}" if end is not None else "open" for end in (threshold.low, threshold.high))
    sentence = f"{percent(threshold.target)} diverge from {threshold.dose:.4g} {what} on (interval {low} to {high})"
    return Verdict(found="threshold", sentence=f"{sentence}; ended: {reason}", threshold=threshold)


def _all_or_nothing(trials: Trials) -> Verdict | None:
    """None where some diverged and some did not."""
    tried = trials.tried()
    runs, diverged = sum(each.runs for each in tried), sum(each.diverged for each in tried)
    if not runs:
        return Verdict(found="unclear", sentence="nothing was compared")
    empty = trials.total()["empty"]
    if empty == runs:
        return Verdict(found="unclear", sentence=EMPTY)
    if diverged == runs:
        return Verdict(found="always", sentence=f"all of {runs} runs diverge")
    if diverged:
        return None
    unclassified = trials.total()["unclassified"]
    if unclassified and not trials.counts_all:
        return Verdict(found="unclear", sentence=f"{unclassified} of {runs} runs differ and cannot be classified")
    most = wilson(0, runs - empty, _CONFIDENCE).high
    sentence = f"none of {runs - empty} runs diverges (at most {percent(most)} would){empty_too(empty)}"
    return Verdict(found="never", sentence=sentence)


def _is_everywhere(trials: Trials, share: float) -> bool:
    """Whether at each dose surely more than this share diverge: then the threshold is below all of them."""
    return all(each.runs and wilson(each.diverged, each.runs, _CONFIDENCE).low > share for each in trials.tried())


async def _over_blocks(options: Options, trials: Trials, longest: int) -> Verdict:
    chosen = list(boundaries(options.block_size, options.min_length, longest, _BOUNDARIES))
    if not chosen:
        raise Mistake(
            f"--max-length is {longest}, --block-size {options.block_size}; there must be a multiple of the block with"
            f" a length below it from --min-length {options.min_length} on and one above it"
        )
    for length, _ in chosen:
        await trials.at_length(length, options.repeats)
    steps = {offset: [trials.steps[length] for length, each in chosen if each == offset] for offset in (-1, 0, 1)}
    return judge_blocks(trials, steps, options.block_size)


def judge_blocks(trials: Trials, steps: dict[int, list[Step]], block: int) -> Verdict:
    """Each offset from the boundary against the two others, with Holm's adjustment of the three tests."""
    counts = {
        offset: (sum(step.diverged(counts_all=trials.counts_all) for step in of), sum(step.runs for step in of))
        for offset, of in steps.items()
    }
    hits, total = (sum(each[part] for each in counts.values()) for part in (0, 1))
    raw = [significance.fisher(diverged, runs, hits - diverged, total - runs) for diverged, runs in counts.values()]
    adjusted = significance.holm(raw)
    offsets: tuple[dict[str, Any], ...] = tuple(
        {"offset": offset, "diverged": diverged, "runs": runs, "p": p,
         "interval": wilson(diverged, runs, _CONFIDENCE)._asdict()}
        for (offset, (diverged, runs)), p in zip(counts.items(), adjusted, strict=True)
    )  # fmt: skip
    plain = _all_or_nothing(trials)
    if plain is not None:
        return replace(plain, offsets=offsets)
    apart = [
        each for each in offsets if each["p"] <= 1 - _CONFIDENCE and each["diverged"] * total > hits * each["runs"]
    ]
    if not apart:
        sentence = f"{hits} of {total} runs diverge, at no offset from multiples of {block} more than elsewhere"
        return Verdict(found="unclear", sentence=sentence, offsets=offsets)
    shown = (f"{each['offset']:+d} ({each['diverged']} of {each['runs']}, p {each['p']:.3g})" for each in apart)
    sentence = f"more diverge at multiples of {block}, offset {', '.join(shown)}"
    return Verdict(found="boundary", sentence=sentence, offsets=offsets)


def _result(options: Options, verdict: Verdict, trials: Trials, longest: int, notes: list[str]) -> Result:
    code = dict(_EXITS)[verdict.found]
    if trials.errors:
        notes.append(f"{counted(trials.errors, 'comparison')} failed, the first: {trials.first_error}")
        code = code if code == Exit.DIFFERENT else Exit.INFRASTRUCTURE
    if verdict.found == "not monotone":
        notes.append(f"{verdict.sentence}; try --over blocks")
    threshold = verdict.threshold
    data = {
        "found": verdict.found,
        "over": options.over,
        "unit": trials.cuts.unit,
        "prompt_length": trials.cuts.length,
        "longest": longest,
        "threshold_length": threshold.dose if threshold is not None and verdict.found == "threshold" else None,
        "always_diverges": verdict.found == "always",
        "never_diverges": verdict.found == "never",
        "total_iterations": sum(step.runs for step in trials.rising()),
        "counts": "all differences" if trials.counts_all else "real differences",
        "fit": msgspec.to_builtins(threshold) if threshold is not None else None,
        "offsets": list(verdict.offsets),
        "steps": [_step(step, trials) for step in trials.rising()],
        "noise": msgspec.to_builtins(noise_of(trials.floor)),
    }
    title = "requests at once" if options.over == "concurrency" else f"length in {trials.cuts.unit}"
    headline, noise = f"{verdict.found}: {verdict.sentence}", noise_line(trials.floor)
    return Result(exit=code, data=data, view=(headline, _table(title, trials, threshold), noise), notes=tuple(notes))


def _step(step: Step, trials: Trials) -> dict[str, Any]:
    diverged = step.diverged(counts_all=trials.counts_all)
    interval = wilson(diverged, step.runs, _CONFIDENCE)
    return {"dose": step.dose, "runs": step.runs, "diverged": diverged, "interval": interval._asdict(),
            "statuses": dict(step.statuses)}  # fmt: skip


def _table(title: str, trials: Trials, threshold: dose.Threshold | None) -> Table:
    table = numbers_table((), (title, "diverged", "share", f"{_CONFIDENCE:.0%} interval", "fitted", "ties"))
    for each in (_step(step, trials) for step in trials.rising()):
        table.add_row(
            str(each["dose"]), f"{each['diverged']} of {each['runs']}",
            percent(each["diverged"] / each["runs"] if each["runs"] else None),
            span(**each["interval"]),
            percent(threshold.chance(each["dose"])) if threshold is not None else "",
            str(each["statuses"].get("tie", 0)),
        )  # fmt: skip
    return table
