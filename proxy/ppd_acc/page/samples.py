"""The list of samples: what differs comes first, each with both texts and all figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ppd_acc.data.report import Sample, Side
from ppd_acc.page.differences import Cut, Marked, around, cuts_of, first_difference_of
from ppd_acc.page.markup import Markup, element, escaped, join
from ppd_acc.page.scales import number
from ppd_acc.page.series import length_unit, prompt_length
from ppd_acc.reports.annotations import NOTHING, Annotation
from ppd_accuracy.answers.said import Part, part_of

_ORDER = ("real", "unclassified", "tie", "error", "empty", "equal")
_OTHER_PARTS: tuple[Part, ...] = ("reasoning", "tool_calls")
_MOST_CHARACTERS = 1500
_MOST_PROMPT = 3000
_MOST_NAME = 120
_TOKENS_AROUND = 5
_MOST_BYTES = 4_000_000
"""Of all samples together, so that a page of long texts stays one that a browser opens at once."""


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
    return Listed(markup=_section(shown, samples, unit), anchors=anchors)


def in_order(samples: Sequence[Sample]) -> list[Sample]:
    """Real differences, unclassified ones, ties, errors, empty and equal ones; the largest shift first."""
    return sorted(samples, key=lambda sample: (_ORDER.index(sample.status), -(_shift(sample) or 0.0)))


def _shift(sample: Sample) -> float | None:
    return sample.flip.shift if sample.flip is not None else None


def _section(shown: Sequence[Markup], samples: Sequence[Sample], unit: str) -> Markup:
    if not samples:
        return element("section", element("h2", "Samples"), element("p", "The report has no samples."), id="samples")
    counts = {status: sum(sample.status == status for sample in samples) for status in _ORDER}
    boxes = [
        element(
            "label", element("input", type="checkbox", value=status, checked=True),
            element("span", status, class_=f"status {status}"), f" {counts[status]:,}",
        )
        for status in _ORDER
        if counts[status]
    ]  # fmt: skip
    controls = element(
        "form",
        element("fieldset", element("legend", "Show"), *boxes),
        element("label", "Search ", element("input", type="search", name="search", placeholder="id, text, note")),
        element("label", "Sort by ", element("select", *_choices(), name="sort")),
        element("output", "", id="shown-count"),
        id="controls",
        hidden=True,
    )
    names = ("Sample", "Status", "First difference", "Shift", f"Prompt ({unit})", "Answers", "Max |\u0394|")
    head = element(
        "div",
        *(element("span", each) for each in names),
        class_="row head",
        aria_hidden="true",
    )  # fmt: skip
    note = ""
    if len(shown) < len(samples):
        note = (
            f"{len(shown):,} of {len(samples):,} samples are listed, those that differ first; all of them count in the"
            " numbers and pictures above. --max-samples lists more; filter makes a smaller report."
        )
    return element(
        "section",
        element("h2", "Samples"),
        element("p", note, class_="note") if note else None,
        controls,
        element("div", head, element("div", *shown, id="list"), class_="samples"),
        id="samples",
    )


def _choices() -> list[Markup]:
    told = (("order", "severity"), ("shift", "shift"), ("position", "position of the first difference"),
            ("prompt", "prompt length"), ("delta", "largest logprob difference"))  # fmt: skip
    return [element("option", name, value=value) for value, name in told]


def _sample(sample: Sample, annotation: Annotation, anchor: str, unit: str) -> Markup:
    length, shift = prompt_length(sample, unit), _shift(sample)
    flip = sample.flip
    bound = "\u2265 " if flip is not None and flip.is_bound else ""
    cells = (
        ("Sample", escaped(_short(sample.sample_id, 60)), "name"),
        ("Status", element("span", sample.status, class_=f"status {sample.status}"), ""),
        ("First difference", _where(sample), ""),
        ("Shift", f"{bound}{number(shift)} nats" if shift is not None else "", "number"),
        ("Prompt", f"{length:,}" if length is not None else "", "number"),
        ("Answers", _lengths(sample), "number"),
        ("Max |\u0394|", number(sample.max_delta) if sample.max_delta is not None else "", "number"),
    )
    summary = element(
        "summary",
        *(
            element("span", element("b", f"{name}: ", class_="quiet"), value, class_=class_ or None)
            if value
            else element("span", "\u2014", class_="empty")
            for name, value, class_ in cells
        ),
        element("span", annotation.line, class_="annotation") if not annotation.is_empty else None,
        class_="row",
    )
    return element(
        "details",
        summary,
        element("div", *_body(sample, annotation), class_="body"),
        id=anchor,
        class_="sample",
        data_status=sample.status,
        data_shift=shift,
        data_position=sample.first_divergence,
        data_prompt=length,
        data_delta=sample.max_delta if sample.max_delta is not None and math.isfinite(sample.max_delta) else None,
    )


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


def _body(sample: Sample, annotation: Annotation) -> list[Markup | None]:
    parts: list[Markup | None] = []
    if not annotation.is_empty:
        labels = [element("span", each, class_="label") for each in annotation.labels]
        parts.append(element("p", join(labels, " "), " ", annotation.note or "", class_="annotation"))
    if sample.error is not None:
        parts.append(element("p", element("strong", f"{sample.failed or 'comparison'}: "), _short(sample.error, 1000)))
    parts.append(_prompt(sample))
    if sample.status != "error":
        marked = first_difference_of(sample)
        parts.append(_texts(sample, marked))
        parts += [_part(sample, part) for part in _OTHER_PARTS]
        parts.append(_tokens(sample))
        parts.append(_facts(sample))
    return parts


def _prompt(sample: Sample) -> Markup | None:
    if sample.messages is not None:
        turns = [
            element("p", element("b", f"{_short(str(each.get('role')), 30)}: "), _short(_content(each), _MOST_PROMPT))
            for each in (sample.messages if len(sample.messages) <= 7 else [sample.messages[0], *sample.messages[-6:]])
        ]
        left_out = (
            f" ({len(sample.messages) - 7} of {len(sample.messages)} messages left out)"
            if len(sample.messages) > 7
            else ""
        )
        return element("div", element("h4", f"Messages{left_out}"), element("div", *turns, class_="text prompt"))
    if sample.prompt is None:
        return None
    return element(
        "div", element("h4", "Prompt"), element("pre", _short(sample.prompt, _MOST_PROMPT), class_="text prompt")
    )


def _content(message: Mapping[str, object]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "" if content is None else str(content)


def _texts(sample: Sample, marked: Marked | None) -> Markup:
    if marked is None:
        if sample.baseline.text == sample.target.text:
            return element("div", element("h4", "Both answers"), _plain(sample.baseline))
        both = (_plain(sample.baseline), _plain(sample.target))
        by = ""
    else:
        both = (_cut_text(marked.baseline), _cut_text(marked.target))
        by = "" if marked.by == "token" else f" (marked by {marked.by})"
    columns = [
        element("div", element("h4", f"{name}{by}"), text)
        for name, text in zip(("Baseline", "Target"), both, strict=True)
    ]
    return element("div", *columns, class_="pair")


def _part(sample: Sample, part: Part) -> Markup | None:
    """Reasoning or tool calls, where an engine gave any: once where both are the same."""
    one, other = (part_of(side.said, part) for side in (sample.baseline, sample.target))
    if not one and not other:
        return None
    name = part.replace("_", " ").capitalize()
    if one == other:
        return element("div", element("h4", f"{name} of both"), _whole(one))
    columns = [
        element("div", element("h4", f"{name}: {side}"), _cut_text(cut))
        for side, cut in zip(("baseline", "target"), cuts_of(one, other), strict=True)
    ]
    return element("div", *columns, class_="pair")


def _whole(text: str) -> Markup:
    return element("pre", _short(text, 2 * _MOST_CHARACTERS), class_="text")


def _plain(side: Side) -> Markup:
    if not side.text:
        said = "(no content)" if not side.said.is_empty else "(empty)"
        told = "(the text was not kept)" if side.tokens and side.said.is_empty else said
        return element("pre", element("i", told), class_="text")
    return _whole(side.text)


def _cut_text(cut: Cut) -> Markup:
    near, before, after = around(cut, _MOST_CHARACTERS)
    return element(
        "pre",
        element("i", f"\u2026 {before:,} characters \u2026 ") if before else None,
        element("span", near.before, class_="same"),
        element("mark", near.differing) if not cut.is_ended else element("mark", "(ends here)", class_="end"),
        near.after,
        element("i", f" \u2026 {after:,} characters \u2026") if after else None,
        class_="text",
    )


def _tokens(sample: Sample) -> Markup | None:
    """Token ids around the first difference: exact also where a token's text is unknown."""
    if sample.flip is None or sample.unit == "words":
        return None
    position = sample.flip.position
    told = (
        ("baseline", sample.baseline, sample.flip.baseline_text),
        ("target", sample.target, sample.flip.target_text),
    )
    rows = [element("div", element("span", name, class_="who"), *_strip(side, position, text), class_="strip")
            for name, side, text in told]  # fmt: skip
    return element("div", element("h4", f"Tokens around position {position:,}"), *rows)


def _strip(side: Side, position: int, text: str | None) -> list[Markup]:
    first = max(0, position - _TOKENS_AROUND)
    found = [element("span", "\u2026", class_="quiet-token")] if first else []
    for at in range(first, min(len(side.tokens), position + _TOKENS_AROUND + 1)):
        token = _short(str(side.tokens[at]), 40).replace("\n", "\u21b5")
        logprob = side.logprobs[at] if at < len(side.logprobs) else None
        title = f"position {at}" + (f", logprob {logprob:.4f}" if logprob is not None else "")
        if at == position:
            told = f"{token} {text!r}" if text is not None else token
            found.append(element("mark", told, title=title))
        else:
            found.append(element("span", token, title=title, class_="same" if at < position else None))
    if position >= len(side.tokens):
        found.append(element("mark", "(ends here)", class_="end"))
    elif position + _TOKENS_AROUND + 1 < len(side.tokens):
        found.append(element("span", "\u2026", class_="quiet-token"))
    return found


def _facts(sample: Sample) -> Markup:
    told = [*_flip_facts(sample), *_delta_facts(sample), *_side_facts(sample)]
    items = [element("div", element("dt", name), element("dd", value)) for name, value in told]
    return element("dl", *items, class_="facts")


def _flip_facts(sample: Sample) -> list[tuple[str, object]]:
    flip = sample.flip
    if flip is None:
        return []
    found: list[tuple[str, object]] = []
    for name, margin in (("baseline's margin", flip.baseline_margin), ("target's margin", flip.target_margin)):
        if margin is not None:
            found.append((name, f"{number(margin)} nats"))
    if flip.shift is not None:
        bound = "at least " if flip.is_bound else ""
        found.append(("shift", f"{bound}{number(flip.shift)} nats"))
    if flip.chance is not None:
        found.append(("chance that a healthy token moves as much", f"at most {number(flip.chance)}"))
    return found


def _delta_facts(sample: Sample) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [(f"compared {sample.unit}", f"{sample.compared_tokens:,}")]
    if sample.mean_delta is not None:
        found.append(("mean |logprob difference|", f"{number(sample.mean_delta)} nats"))
    if sample.max_delta is not None:
        at = f" at {sample.max_delta_at:,}" if sample.max_delta_at is not None else ""
        found.append(("max |logprob difference|", f"{number(sample.max_delta)} nats{at}"))
    if sample.not_numbers:
        found.append(("logprobs that are no numbers", f"{sample.not_numbers:,}"))
    forced = sample.forced
    if forced is not None:
        found += [
            ("target's tokens under the baseline", f"{forced.tokens:,}, {100 * forced.token_accuracy:.2f} % its best"),
            ("forced |logprob difference|", f"mean {number(forced.mean_delta)}, max {number(forced.max_delta)} nats at"
             f" {forced.max_delta_at:,}"),
            ("forced likelihood difference", f"{number(forced.likelihood_delta)} nats"),
        ]  # fmt: skip
        if forced.not_numbers:
            found.append(("forced logprobs that are no numbers", f"{forced.not_numbers:,}"))
    return found


def _side_facts(sample: Sample) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, side in (("baseline", sample.baseline), ("target", sample.target)):
        told = [f"ended by {side.finish_reason}" if side.finish_reason else "end not told"]
        if side.first_ms is not None:
            told.append(f"first token {side.first_ms:,.0f} ms")
        if side.total_ms is not None:
            told.append(f"{side.total_ms:,.0f} ms")
        if side.request_id:
            told.append(f"request {_short(side.request_id, _MOST_NAME)}")
        found.append((name, ", ".join(told)))
    if sample.tags:
        found.append(("tags", _short(", ".join(sample.tags), 300)))
    found += [(_short(str(name), 40), _short(str(value), 300)) for name, value in [*sample.metadata.items()][:12]
              if value is not None]  # fmt: skip
    return found


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} \u2026 ({len(text) - most:,} more characters)"
