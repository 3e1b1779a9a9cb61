"""sensitivity: do two engines part on small changes of a prompt, on all of them, on none, or on some?

Each changed prompt is asked on both engines. Systematic: every one differs by more than the noise floor; robust: none
does, at most by ties; mixed: some do. Beside it stands how often the baseline differs from itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from ppd_acc.ask.access import Terms
from ppd_acc.ask.engines import engines_by_side
from ppd_acc.ask.model_notes import with_model_notes
from ppd_acc.ask.question import Question
from ppd_acc.cli.flags import pair_flags, positive, prompt_text, terms_flags
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, value
from ppd_acc.compare.broken_numbers import broken_sentence
from ppd_acc.compare.compare import compare, noise_of
from ppd_acc.compare.decisions import decision_data
from ppd_acc.compare.floors import measured_floor
from ppd_acc.data.report import STATUSES, Sample, Status
from ppd_acc.experiments.perturbations import Perturbation, perturb
from ppd_acc.outcome import Exit, Mistake, Result, Trouble
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import Progress, counted, empty_too, nats, noise_line, numbers_table, percent, span
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.answers.said import sentence
from ppd_accuracy.statistics import gates
from ppd_accuracy.statistics.intervals import wilson

_NOISE_ANSWERS, _PERTURBATIONS, _CONFIDENCE = 12, 5, 0.95
_ORIGINAL = "as it is"


def _prompt(given: Given) -> str:
    if not given.flag("prompt").strip():
        raise Mistake("--prompt is empty; give a text that can be changed")
    return str(given.flag("prompt"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    urls: Mapping[str, str] = pair_flags()
    prompt: str = flag(type=prompt_text, metavar="TEXT", required=True, help="what is changed", read=_prompt)
    perturbations: int = value("N", "changed prompts, drawn by --seed", positive, _PERTURBATIONS)
    terms: Terms = terms_flags(_NOISE_ANSWERS)


async def run(options: Options, surroundings: Surroundings) -> Result:
    changed = perturb(options.prompt, options.perturbations, options.terms.sampling.seed)
    asked = [Perturbation(kind=_ORIGINAL, text=options.prompt), *changed]
    questions = [Question(prompt=each.text) for each in asked]
    async with engines_by_side(options.terms.access, options.urls) as (baseline, target):
        floor = (await measured_floor(baseline, questions, options.terms, surroundings)).of_run(len(asked))
        progress = Progress(surroundings.errors, "sensitivity", len(asked))

        async def one(number: int, each: Perturbation) -> Sample:
            question = questions[number]
            sample = await compare(baseline, target, str(number), question, options.terms.sampling, floor)
            sample.tags = [each.kind, *sample.tags]
            progress.step()
            return sample

        samples = await asyncio.gather(*(one(number, each) for number, each in enumerate(asked)))
    if all(sample.status == "error" for sample in samples):
        raise Trouble(f"--{samples[0].failed}: {samples[0].error}")
    notes = []
    if len(changed) < options.perturbations:
        notes.append(f"the prompt has only {len(changed)} different changes; {options.perturbations} were asked for")
    return with_model_notes(_result(asked, samples, floor, notes), baseline, target)


def _result(asked: Sequence[Perturbation], samples: Sequence[Sample], floor: ReplayNoise, notes: list[str]) -> Result:
    changed = samples[1:]
    counts = {status: sum(sample.status == status for sample in changed) for status in STATUSES}
    compared = len(changed) - counts["error"] - counts["empty"]
    classification, code = classify(counts, is_original_real=samples[0].status == "real")
    errors = [sample for sample in samples if sample.status == "error"]
    if errors:
        notes.append(f"{counted(len(errors), 'prompt')} could not be compared, the first: {errors[0].error}")
        code = code if code == Exit.DIFFERENT else Exit.INFRASTRUCTURE
    divergent = sum(sample.is_divergent for sample in changed)
    rates = {
        "divergent": _rate(divergent, compared),
        "real": _rate(counts["real"], compared),
        "baseline_against_itself": _rate(floor.flips, floor.answers),
    }
    against_noise = gates.unpaired(floor.flips, floor.answers, divergent, compared, 1 - _CONFIDENCE)
    data = {
        "classification": classification,
        "original": samples[0].status,
        "counts": counts,
        "rates": rates,
        "against_noise": decision_data(against_noise),
        "by_kind": _by_kind(changed),
        "samples": [msgspec.to_builtins(sample) for sample in samples],
        "noise": msgspec.to_builtins(noise_of(floor)),
    }
    headline = (
        f"{classification}: {counts['real']} of {compared} changed prompts differ by more than the noise floor,"
        f" {counts['tie']} by ties, {counts['unclassified']} not to be classified; the prompt as it is:"
        f" {samples[0].status}{empty_too(counts['empty'])}"
    )
    beside = f"divergence rate {_told(rates['divergent'])}"
    if floor.answers and against_noise.p is not None:
        itself = _told(rates["baseline_against_itself"])
        beside += f"; the baseline against itself {itself}: Fisher p {against_noise.p:.4f}"
    view = (headline, beside, _table(asked, samples), noise_line(floor))
    return Result(exit=code, data=data, view=view, notes=tuple(notes))


def classify(counts: Mapping[Status, int], *, is_original_real: bool) -> tuple[str, Exit]:
    """By the changed prompts that were compared; the prompt as it is fails, too, where it is really different."""
    compared = sum(counts.values()) - counts["error"] - counts.get("empty", 0)
    if counts["real"] and counts["real"] == compared:
        return "systematic", Exit.DIFFERENT
    if counts["real"]:
        return "mixed", Exit.DIFFERENT
    if is_original_real:
        return "only the prompt as it is", Exit.DIFFERENT
    if counts["unclassified"] or not compared:
        return "unclear", Exit.INCONCLUSIVE
    return "robust", Exit.PASS


def _rate(hits: int, total: int) -> dict[str, Any]:
    interval = wilson(hits, total, _CONFIDENCE)
    return {"hits": hits, "total": total, "rate": hits / total if total else None, "interval": interval._asdict()}


def _told(rate: dict[str, Any]) -> str:
    return f"{percent(rate['rate'])} ({span(**rate['interval'])})"


def _by_kind(changed: Sequence[Sample]) -> dict[str, dict[str, int]]:
    kinds = dict.fromkeys(sample.tags[0] for sample in changed)
    return {
        kind: {status: sum(each.status == status and each.tags[0] == kind for each in changed) for status in STATUSES}
        for kind in kinds
    }


def _table(asked: Sequence[Perturbation], samples: Sequence[Sample]) -> Table:
    table = numbers_table(("change", "status"), ("first difference", "shift", "chance"), "Changed prompts")
    table.add_column("prompt", overflow="ellipsis", no_wrap=True, max_width=60)
    for each, sample in zip(asked, samples, strict=True):
        flip = sample.flip
        cells = ("; ".join(filter(None, (broken_sentence(sample), sentence(sample.differences)))), "", "")
        if flip is not None:
            chance = "" if flip.chance is None else f"{flip.chance:.3g}"
            cells = (sample.place or "", nats(flip.shift), chance)
        table.add_row(each.kind, sample.status, *map(Text, cells), Text(repr(each.text)))
    return table
