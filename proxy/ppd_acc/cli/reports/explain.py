"""explain: what happened at one sample's first difference, and what to try next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_acc.ask.access import Access
from ppd_acc.ask.engines import EngineTrouble, engines
from ppd_acc.cli.flags import not_negative
from ppd_acc.cli.options import derived, flag, value
from ppd_acc.cli.reports.source import ProxySource, Source, report_from, source_flags
from ppd_acc.data.from_proxy import notes_of, with_sample
from ppd_acc.data.report import Report, Sample
from ppd_acc.outcome import Exit, Result
from ppd_acc.reports.annotations import NOTHING, sample_of
from ppd_acc.reports.explaining import Idea, Place, advice, places, split_texts, story, token_ids
from ppd_acc.surroundings import Surroundings
from ppd_accuracy.answers.flips import Token
from ppd_accuracy.answers.said import part_of

_TEXT_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`access` is there where an engine or a proxy is asked."""

    source: Source = source_flags()
    sample: str = flag(required=True, metavar="ID", help="which sample")
    context_window: int = flag(type=not_negative, default=5, metavar="N", help="tokens around it (default 5)")
    url: str | None = value(
        "URL", "an engine that names token ids by /detokenize (default: the proxy, if one is read)",
        read=lambda given: given.url("url") or given.url("from_proxy"),
    )  # fmt: skip
    access: Access | None = derived(
        lambda given: given.access() if given.flag("url") or given.flag("from_proxy") else None
    )


async def run(options: Options, _: Surroundings) -> Result:
    source = options.source
    report = await report_from(source)
    if isinstance(source, ProxySource):
        report = await with_sample(report, options.sample, source.url, source.access)
    sample = sample_of(report, options.sample)
    annotation = source.annotations().get(sample.sample_id, NOTHING)
    shown = places(sample, options.context_window)
    names, note = await _names(options, token_ids(shown))
    sample = _named(sample, names)
    sentences, ideas = story(sample, report), advice(sample, report)
    view: list[RenderableType] = [f"sample {sample.sample_id}"]
    view += [f"annotation: {annotation.line}"] if not annotation.is_empty else []
    view += [f"- {sentence}" for sentence in sentences]
    view += _context_view(sample, shown, names)
    if ideas:
        view.append("what to try next:")
        view += [f"- {each.why}" + (f"\n    {each.command}" if each.command else "") for each in ideas]
    notes = (*notes_of(report), *([note] if note else []))
    data = _data(sample, report, sentences, shown, names, ideas)
    data["annotation"] = None if annotation.is_empty else msgspec.to_builtins(annotation)
    return Result(exit=Exit.PASS, data=data, view=tuple(view), notes=notes)


async def _names(options: Options, ids: Sequence[int]) -> tuple[dict[int, str], str | None]:
    """Texts of token ids by an engine's /detokenize, and why there are none. That is no reason to fail."""
    if options.url is None or options.access is None or not ids:
        return {}, None
    async with engines(options.access, options.url) as (engine,):
        try:
            model = await engine.model()
            bodies = [{"model": model, "tokens": [each]} for each in ids]
            replies = await asyncio.gather(*(engine.post("/detokenize", body) for body in bodies))
        except EngineTrouble as trouble:
            return {}, f"token ids stay without texts: {trouble}"
    texts = [each.get("prompt") if isinstance(each, dict) else None for each in replies]
    return {token: text for token, text in zip(ids, texts, strict=True) if isinstance(text, str)}, None


def _named(sample: Sample, names: Mapping[int, str]) -> Sample:
    """With the texts of the two tokens that differ."""
    flip = sample.flip
    if flip is None:
        return sample

    def text(known: str | None, token: Token | None) -> str | None:
        return known if known is not None or not isinstance(token, int) else names.get(token)

    one, other = text(flip.baseline_text, flip.baseline_token), text(flip.target_text, flip.target_token)
    named = msgspec.structs.replace(flip, baseline_text=one, target_text=other)
    return msgspec.structs.replace(sample, flip=named)


def _context_view(sample: Sample, shown: Sequence[Place], names: Mapping[int, str]) -> list[RenderableType]:
    view: list[RenderableType] = []
    if shown:
        table = Table("token", "baseline", "target", "baseline logprob", "target logprob", "difference")
        for place in shown:
            is_first = place.position == sample.first_divergence
            tokens = (_token(each, names) for each in (place.baseline, place.target))
            numbers = (place.baseline_logprob, place.target_logprob, place.delta)
            shown_numbers = ("" if each is None else f"{each:.4f}" for each in numbers)
            mark, style = ("> ", "bold") if is_first else ("  ", None)
            table.add_row(f"{mark}{place.position}", *tokens, *shown_numbers, style=style)
        view.append(table)
    if sample.baseline.text and sample.target.text and sample.baseline.text != sample.target.text:
        shared, one, other = split_texts(sample)
        before = ("..." if len(shared) > _TEXT_CHARACTERS else "") + shared[-_TEXT_CHARACTERS:]
        view += [f"both:     {before!r}", f"baseline: {_cut(one)!r}", f"target:   {_cut(other)!r}"]
    for each in sample.differences:
        if each.part != "content":
            one, other = (part_of(side.said, each.part) for side in (sample.baseline, sample.target))
            at = max(0, (each.at or 0) - _TEXT_CHARACTERS // 2) if each.part == "reasoning" else 0
            name = each.part.replace("_", " ")
            view += [f"baseline {name}: {_cut(one[at:])!r}", f"target {name}:   {_cut(other[at:])!r}"]
    return view


def _cut(text: str) -> str:
    return text[:_TEXT_CHARACTERS] + ("..." if len(text) > _TEXT_CHARACTERS else "")


def _token(token: Token | None, names: Mapping[int, str]) -> Text:
    if isinstance(token, int):
        return Text(f"{token} {names[token]!r}" if token in names else str(token))
    return Text("" if token is None else repr(token))


def _data(
    sample: Sample, report: Report, sentences: Sequence[str], shown: Sequence[Place], names: Mapping[int, str],
    ideas: Sequence[Idea],
) -> dict[str, Any]:  # fmt: skip
    shared, one, other = split_texts(sample)

    def text(token: Token | None) -> str | None:
        return names.get(token) if isinstance(token, int) else token

    return {
        **{name: getattr(sample, name) for name in ("sample_id", "status", "unit", "prompt_tokens")},
        "story": list(sentences),
        "flip": msgspec.to_builtins(sample.flip),
        "noise": msgspec.to_builtins(report.noise),
        "before": {
            "tokens": sample.compared_tokens,
            **{name: getattr(sample, name) for name in ("mean_delta", "max_delta", "max_delta_at", "not_numbers")},
        },
        "forced": msgspec.to_builtins(sample.forced),
        "context": [
            {**asdict(place), "baseline_text": text(place.baseline), "target_text": text(place.target)}
            for place in shown
        ],
        "texts": {"shared": shared, "baseline": one, "target": other},
        "differences": msgspec.to_builtins(sample.differences),
        "said": {side: msgspec.to_builtins(getattr(sample, side).said) for side in ("baseline", "target")},
        "advice": [asdict(each) for each in ideas],
        "error": sample.error,
        "metadata": sample.metadata,
    }
