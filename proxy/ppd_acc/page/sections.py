"""The page's parts that are no pictures: headline, totals, settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from ppd_acc.data.report import EngineInfo, Report, Totals
from ppd_acc.page.markup import element, rendered, table
from ppd_acc.page.scales import number
from ppd_acc.page.verdicts import Headline
from ppd_accuracy.statistics.intervals import wilson

_SIGNS = (("pass", "\u2713", "Pass"), ("fail", "\u2715", "Fail"), ("inconclusive", "?", "Inconclusive"),
          ("partial", "!", "Partial"), ("empty", "\u2205", "Empty"))  # fmt: skip
_LEAST_GATE = ("outcome", "reason")
_MOST_CELL = 400


def header(report: Report, headline: Headline, title: str, notes: Sequence[str]) -> Markup:
    sign, name = next((sign, name) for outcome, sign, name in _SIGNS if outcome == headline.outcome)
    sides = (("baseline", report.baseline), ("target", report.target))
    return rendered(
        "header.html", title=title, headline=headline, sign=sign, name=name, notes=notes,
        engines=[(side, _engine(engine)) for side, engine in sides if engine],
        imported_from=report.imported_from, when=moment(report.created_at),
    )  # fmt: skip


def _engine(engine: EngineInfo) -> str:
    model = f" {engine.model}" if engine.model else ""
    version = f" ({engine.version})" if engine.version else ""
    return f"{engine.url}{model}{version}"


def moment(seconds: float) -> str | None:
    """In UTC, as its date and time; None where it was not told or is none."""
    try:
        if not seconds > 0:
            return None
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return None


def cards(totals: Totals) -> Markup:
    """One per status: count, share of the compared answers (of all samples for errors) and its interval."""
    counts = [
        ("equal", "equal", totals.equal, totals.compared),
        ("tie", "ties", totals.tie, totals.compared),
        ("real", "real differences", totals.real, totals.compared),
        ("unclassified", "unclassified", totals.unclassified, totals.compared),
        ("error", "errors", totals.error, totals.samples),
    ]
    if totals.empty:
        counts.append(("empty", "empty on both sides", totals.empty, totals.samples))
    shown = [(status, name, count, _share(count, of, totals.confidence)) for status, name, count, of in counts]
    return rendered("cards.html", totals=totals, cards=shown)


def _share(count: int, total: int, confidence: float) -> str:
    if not total:
        return ""
    interval = wilson(count, total, confidence)
    return f"{100 * count / total:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f} %)"


def settings(report: Report, totals: Totals, files: Iterable[tuple[str, str]]) -> Markup:
    """Everything the numbers were made with. `files` are name and path of what the page was made from."""
    rows: list[tuple[str, object]] = [*files]
    for name, engine in (("baseline", report.baseline), ("target", report.target)):
        if engine is not None:
            rows += [
                (f"{name}: URL", engine.url),
                (f"{name}: model", engine.model),
                (f"{name}: version", engine.version),
            ]
    for dataset in report.datasets:
        rows.append(("dataset", f"{dataset.path}, {dataset.samples:,} samples, sha256 {dataset.sha256}"))
    rows += [(name, value) for name, value in _flat(report.settings)]
    noise = report.noise
    if noise.answers:
        rows += [
            ("noise floor: answers", f"{noise.answers:,}, {noise.tokens:,} tokens"),
            ("noise floor: longest prompt", None if (most := noise.longest_prompt) is None else f"{most:,} tokens"),
            ("noise floor: not the same when asked again", f"{noise.flips:,}"),
            ("noise floor: largest shift", _nats(noise.largest_shift)),
            ("noise floor: largest |logprob difference|", _nats(noise.largest_delta)),
            ("noise floor: quantiles", ", ".join(f"{n} {number(v)}" for n, v in noise.delta_quantiles.items()) or None),
        ]
        if noise.broken:
            rows.append(("noise floor: no numbers", f"{noise.broken:,}; nothing can be judged by it"))
    else:
        rows.append(("noise floor", "not measured"))
    rows += [(f"gate: {name.replace('_', ' ')}", value) for name, value in _flat(report.gate)
             if name not in _LEAST_GATE]  # fmt: skip
    rows += [("confidence", f"{100 * totals.confidence:g} %"), ("tool", report.tool),
             ("made", moment(report.created_at)),
             ("imported from", report.imported_from)]  # fmt: skip
    shown = [(name, _cell(value)) for name, value in rows if value is not None and value != ""]
    return element(
        "section", element("h2", "Settings, engines, dataset"),
        table(("Name", "Value"), shown, caption="What the numbers were made with", class_="settings"), id="settings",
    )  # fmt: skip


def _nats(value: float | None) -> str | None:
    return None if value is None else f"{number(value)} nats"


def _cell(value: object) -> Markup:
    text = str(value)
    return element("code", text if len(text) <= _MOST_CELL else f"{text[:_MOST_CELL]} \u2026")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, object]]:
    """Nested tables as `table.name`; at most a few levels deep."""
    for name, value in values.items():
        full = f"{before}{name}"
        if isinstance(value, Mapping) and value and before.count(".") < 3:
            yield from _flat(value, f"{full}.")
        elif isinstance(value, float):
            yield full, f"{value:.6g}" if math.isfinite(value) else "no number"
        else:
            yield full, value
