"""The list of samples: what differs comes first, each with both texts and all figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ppd_acc.data.report import Sample, Side
from ppd_acc.page.differences import around, cuts_of, first_difference_of
from ppd_acc.page.markup import element, rendered, short
from ppd_acc.page.scales import number
from ppd_acc.page.series import length_unit, prompt_length
from ppd_acc.reports.annotations import NOTHING, Annotation
from ppd_accuracy.answers.said import Part, part_of

_ORDER = ("real", "unclassified", "tie", "error", "empty", "equal")
_OTHER_PARTS: tuple[Part, ...] = ("reasoning", "tool_calls")
_MOST_NAME = 120
_TOKENS_AROUND = 5
_MOST_BYTES = 4_000_000
"""Of all samples together, so that a page of long texts stays one that a browser opens at once."""
_Token = tuple[str, str, str | None, str | None]
"""Tag, text, title and class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """`anchors` maps the ids that are shown to the places on the page."""

    markup: Markup
    anchors: Mapping[str, str]


def listed(samples: Sequence[Sample], annotations: Mapping[str, Annotation], most: int) -> Listed:
    """At most `most` samples, fewer where their texts are long."""
    unit = length_unit([sample for sample in samples if sample.status != "error"])
    shown: list[Markup] = []
    anchors: dict[str, str] = {}
    size = 0
    for place, sample in enumerate(in_order(samples)[:most]):
        anchor = f"sample-{place}"
        drawn = _sample(sample, annotations.get(sample.sample_id, NOTHING), anchor, unit)
        size += len(drawn)
        if size > _MOST_BYTES and shown:
            break
        shown.append(drawn)
        anchors[sample.sample_id] = anchor
    counts = {status: sum(sample.status == status for sample in samples) for status in _ORDER}
    return Listed(
        markup=rendered("samples.html", shown=shown, total=len(samples), counts=counts, unit=unit), anchors=anchors
    )


def in_order(samples: Sequence[Sample]) -> list[Sample]:
    """Real differences, unclassified ones, ties, errors, empty and equal ones; the largest shift first."""
    return sorted(samples, key=lambda sample: (_ORDER.index(sample.status), -(_shift(sample) or 0.0)))


def _shift(sample: Sample) -> float | None:
    return sample.flip.shift if sample.flip is not None else None


def _sample(sample: Sample, annotation: Annotation, anchor: str, unit: str) -> Markup:
    length, shift, delta = prompt_length(sample, unit), _shift(sample), sample.max_delta
    bound = "\u2265 " if sample.flip is not None and sample.flip.is_bound else ""
    cells = (
        ("Sample", short(sample.sample_id, 60), "name"),
        ("Status", element("span", sample.status, class_=f"status {sample.status}"), None),
        ("First difference", _where(sample), None),
        ("Shift", f"{bound}{number(shift)} nats" if shift is not None else "", "number"),
        ("Prompt", f"{length:,}" if length is not None else "", "number"),
        ("Answers", _lengths(sample), "number"),
        ("Max |\u0394|", number(delta) if delta is not None else "", "number"),
    )
    data = (
        ("shift", shift),
        ("position", sample.first_divergence),
        ("prompt", length),
        ("delta", delta if delta is not None and math.isfinite(delta) else None),
    )
    return rendered(
        "sample.html", sample=sample, annotation=annotation, anchor=anchor, cells=cells, data=data,
        turns=_turns(sample.messages or ()), marked=first_difference_of(sample), around=around, cuts_of=cuts_of,
        parts=[*_parts(sample)], strips=_strips(sample), facts=_facts(sample),
    )  # fmt: skip


def _where(sample: Sample) -> str:
    """The token or word, or the parts of the answers."""
    if sample.flip is not None:
        return f"{sample.unit[:-1]} {sample.flip.position:,}"
    return ", ".join(each.part.replace("_", " ") for each in sample.differences)


def _lengths(sample: Sample) -> str:
    if sample.status == "error":
        return ""
    one, other = len(sample.baseline.tokens), len(sample.target.tokens)
    return f"{one:,}" if one == other else f"{one:,} / {other:,}"


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Role and content: all of a short conversation, else the first and the last ones."""
    shown = messages if len(messages) <= 7 else [messages[0], *messages[-6:]]
    contents = ("" if (content := each.get("content")) is None else str(content) for each in shown)
    return [(str(each.get("role")), content) for each, content in zip(shown, contents, strict=True)]


def _parts(sample: Sample) -> Iterator[tuple[str, str, str]]:
    """Reasoning and tool calls, where an engine gave any."""
    for part in _OTHER_PARTS:
        one, other = (part_of(side.said, part) for side in (sample.baseline, sample.target))
        if one or other:
            yield part.replace("_", " ").capitalize(), one, other


def _strips(sample: Sample) -> list[tuple[str, list[_Token]]]:
    """Token ids around the first difference: exact also where a token's text is unknown."""
    flip = sample.flip
    if flip is None or sample.unit == "words":
        return []
    sides = (("baseline", sample.baseline, flip.baseline_text), ("target", sample.target, flip.target_text))
    return [(name, _strip(side, flip.position, text)) for name, side, text in sides]


def _strip(side: Side, position: int, text: str | None) -> list[_Token]:
    first, last = max(0, position - _TOKENS_AROUND), position + _TOKENS_AROUND
    left_out: _Token = ("span", "\u2026", None, "quiet-token")
    strip = [left_out] if first else []
    for at, token in enumerate(side.tokens[first : last + 1], first):
        shown = short(str(token), 40).replace("\n", "\u21b5")
        logprob = side.logprobs[at] if at < len(side.logprobs) else None
        title = f"position {at}" + (f", logprob {logprob:.4f}" if logprob is not None else "")
        if at == position:
            strip.append(("mark", f"{shown} {text!r}" if text is not None else shown, title, None))
        else:
            strip.append(("span", shown, title, "same" if at < position else None))
    if position >= len(side.tokens):
        strip.append(("mark", "(ends here)", None, "end"))
    elif last + 1 < len(side.tokens):
        strip.append(left_out)
    return strip


def _facts(sample: Sample) -> list[tuple[str, str]]:
    """What is told of each side and of the sample beside its figures."""
    facts = [("baseline", _told_of(sample.baseline)), ("target", _told_of(sample.target))]
    if sample.tags:
        facts.append(("tags", short(", ".join(sample.tags), 300)))
    known = [(name, value) for name, value in [*sample.metadata.items()][:12] if value is not None]
    return [*facts, *((short(str(name), 40), short(str(value), 300)) for name, value in known)]


def _told_of(side: Side) -> str:
    parts = (
        f"ended by {side.finish_reason}" if side.finish_reason else "end not told",
        f"first token {side.first_ms:,.0f} ms" if side.first_ms is not None else "",
        f"{side.total_ms:,.0f} ms" if side.total_ms is not None else "",
        f"request {short(side.request_id, _MOST_NAME)}" if side.request_id else "",
    )
    return ", ".join(filter(None, parts))
