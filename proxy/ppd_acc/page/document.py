"""The whole page: one file, readable without a network. It may load nothing and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from markupsafe import Markup

from ppd_acc.data.report import Report
from ppd_acc.data.totals import totals_in
from ppd_acc.page import answer_pictures as answers
from ppd_acc.page import length_pictures as lengths
from ppd_acc.page import logprob_pictures as logprobs
from ppd_acc.page import sections, series
from ppd_acc.page.drawing import Picture, figure
from ppd_acc.page.kv_picture import Heat, heat_picture
from ppd_acc.page.markup import asset, rendered
from ppd_acc.page.samples import Listed, listed
from ppd_acc.page.verdicts import Headline, headline
from ppd_acc.reports.annotations import Annotation

MOST_SAMPLES = 500
_NOTHING: Mapping[str, Annotation] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`html` is the file's text; `shown` of all samples are listed in it."""

    html: str
    headline: Headline
    shown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a page shows beside its report. `files` are name and path of what it was made from."""

    title: str = "ppd-acc report"
    annotations: Mapping[str, Annotation] = field(default_factory=lambda: _NOTHING)
    heat: Heat | None = None
    files: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    most_samples: int = MOST_SAMPLES


def page_of(report: Report, extras: Extras) -> Page:
    totals = totals_in(report)
    first = headline(report, totals)
    shown = listed(report.samples, extras.annotations, extras.most_samples)
    style, script = Markup(asset("page.css")), Markup(asset("page.js"))
    html = rendered(
        "page.html", title=f"{first.told} \u2013 {extras.title}", policy=_policy(style, script), style=style,
        script=script,
        header=sections.header(report, first, extras.title, extras.notes), cards=sections.cards(totals),
        pictures=_pictures(report, totals.confidence, shown, extras.heat), samples=shown.markup,
        settings=sections.settings(report, totals, extras.files), tool=report.tool or "ppd-acc",
    )  # fmt: skip
    return Page(html=str(html), headline=first, shown=len(shown.anchors))


def _pictures(report: Report, confidence: float, shown: Listed, heat: Heat | None) -> list[Markup]:
    samples = series.compared(report)
    pictures: list[Picture] = []
    if samples:
        shares = series.shares(report, confidence)
        prompt_unit = series.length_unit(samples)
        unit = "words" if any(sample.unit == "words" for sample in samples) else "tokens"
        pictures = [
            answers.shares_picture(shares, confidence),
            answers.survival_picture(samples, confidence, unit),
            logprobs.margins_picture(series.margins(samples), report.noise, shown.anchors),
            answers.hazard_picture(series.hazard_bins(samples, confidence), unit, confidence),
            logprobs.positions_picture(series.deltas_by_position(samples), report.noise),
            logprobs.prompts_picture(series.deltas_by_prompt(samples, prompt_unit), report.noise, prompt_unit),
            answers.lengths_picture(
                series.rates_by_length(samples, prompt_unit, confidence), shares[-1], prompt_unit, confidence
            ),
            lengths.differences_picture(series.length_differences(samples), unit),
            lengths.finishes_table(series.finishes(samples)),
        ]
    if heat is not None:
        pictures.append(heat_picture(heat))
    return [figure(picture) for picture in sorted(pictures, key=lambda picture: picture.is_nothing)]


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none';"
        " form-action 'none'"
    )


def _digest(text: str) -> str:
    """How a content security policy names what may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
