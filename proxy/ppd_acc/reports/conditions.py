"""Which samples of a report `filter` keeps: conditions that must all hold. Reads no file.

A sample of which a condition's figure is not known is not kept; how many those are is counted, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ppd_acc.data.report import Sample
from ppd_acc.reports.annotations import NOTHING, Annotation

Figure = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`holds` is None where the sample does not tell."""

    name: str
    holds: Callable[[Sample], bool | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """`unknown`: by condition, samples that do not tell and were not kept for that."""

    samples: list[Sample]
    unknown: Mapping[str, int]


def keep(samples: Sequence[Sample], conditions: Sequence[Condition]) -> Kept:
    """The samples for which every condition holds."""
    kept: list[Sample] = []
    unknown: dict[str, int] = {}
    for sample in samples:
        answers = [(condition.name, condition.holds(sample)) for condition in conditions]
        for name, answer in answers:
            if answer is None:
                unknown[name] = unknown.get(name, 0) + 1
        if all(answer for _, answer in answers):
            kept.append(sample)
    return Kept(kept, unknown)


def within(
    name: str, figure: Figure, low: float | None, high: float | None, *, is_of_difference: bool = False
) -> list[Condition]:
    """low <= figure <= high, as far as they are given. `is_of_difference`: a sample without one does not meet it."""

    def holds(sample: Sample) -> bool | None:
        if is_of_difference and sample.flip is None:
            return False
        value = figure(sample)
        if value is None or value != value:
            return None
        return (low is None or value >= low) and (high is None or value <= high)

    bounds = [f"{value:g}" if value is not None else "" for value in (low, high)]
    return [] if low is None and high is None else [Condition(name=f"{name} {bounds[0]}..{bounds[1]}", holds=holds)]


def shift(sample: Sample) -> float | None:
    """Nats; a lower bound where the flip says so."""
    return sample.flip.shift if sample.flip is not None else None


def prompt_length(sample: Sample) -> float | None:
    """Tokens; words in imported reports."""
    if sample.prompt_tokens is not None:
        return sample.prompt_tokens
    words = sample.metadata.get("context_words")
    return words if isinstance(words, int) else None


def answer_length(sample: Sample) -> float | None:
    """Of the target."""
    return len(sample.target.tokens) if sample.error is None else None


def has_status(statuses: Sequence[str]) -> Condition:
    return Condition(name=f"status {', '.join(statuses)}", holds=lambda sample: sample.status in statuses)


def has_id(pattern: re.Pattern[str]) -> Condition:
    return Condition(name=f"id {pattern.pattern}", holds=lambda sample: pattern.search(sample.sample_id) is not None)


def has_tag(tag: str) -> Condition:
    """A tag of the sample, or a metadata value: `tag` or `key=value`."""
    key, equals, value = tag.partition("=")

    def holds(sample: Sample) -> bool:
        if equals:
            return key in sample.metadata and str(sample.metadata[key]) == value
        return tag in sample.tags

    return Condition(name=f"tag {tag}", holds=holds)


def has_label(label: str, annotations: Mapping[str, Annotation]) -> Condition:
    return Condition(
        name=f"label {label}", holds=lambda sample: label in annotations.get(sample.sample_id, NOTHING).labels
    )


def is_annotated(wanted: bool, annotations: Mapping[str, Annotation]) -> Condition:
    return Condition(
        name="annotated" if wanted else "unannotated",
        holds=lambda sample: annotations.get(sample.sample_id, NOTHING).is_empty != wanted,
    )


def has_text(text: str) -> Condition:
    """In the prompt or in one of the answers, whatever the case."""
    wanted = text.casefold()

    def holds(sample: Sample) -> bool:
        asked = sample.prompt if sample.prompt is not None else str(sample.messages or "")
        told = (str(side.said) for side in (sample.baseline, sample.target))
        return any(wanted in each.casefold() for each in (asked, *told))

    return Condition(name=f"text {text!r}", holds=holds)
