"""summary: a report in one line, as a table, as KEY=VALUE lines or as JSON."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Any

from rich.table import Table
from rich.text import Text

from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags
from ppd_acc.cli.reports.source import Source, add_source_flags, report_from, source_of
from ppd_acc.data.from_proxy import notes_of
from ppd_acc.data.report import Report
from ppd_acc.data.totals import totals_in
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted, nats, percent, verbatim

_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "error": "errors", "max_delta": "largest logprob difference before the first different token",
        "noise_largest_shift": "noise floor: largest shift",
        "noise_largest_delta": "noise floor: largest logprob difference",
    }
)  # fmt: skip
_IN_NATS = frozenset(("max_delta", "noise_largest_shift", "noise_largest_delta"))
_NOISE = ("answers", "flips", "largest_shift", "largest_delta")
_COUNTS = ("samples", "compared", "equal", "tie", "real", "unclassified", "error", "empty")
FORMATS = ("oneline", "json", "kv", "table")


def _source(given: Given) -> Source:
    if given.flag("file") is not None and given.flag("report") is not None:
        raise Mistake("the report is given twice; give FILE or --report")
    return source_of(given, file=given.flag("file"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    file: str | None = flag("file", nargs="?", metavar="FILE", help="what batch-compare wrote (or --report)")
    source: Source = flags(add_source_flags, _source)
    format: str = flag(choices=FORMATS, default="oneline", help="default oneline")


async def run(options: Options, _: Surroundings) -> Result:
    report = await report_from(options.source)
    data = summary_of(report)
    shown: dict[str, Any] = {"oneline": _oneline, "json": _json, "kv": _kv, "table": _table}
    return Result(exit=Exit.PASS, data=data, view=(shown[options.format](data),), notes=notes_of(report))


def summary_of(report: Report) -> dict[str, Any]:
    """The figures, flat; None where the report does not tell."""
    totals = totals_in(report)
    positions = [sample.flip.position for sample in report.samples if sample.flip is not None]
    deltas = [sample.max_delta for sample in report.samples if sample.max_delta is not None]
    engine = report.target or report.baseline
    return {
        "baseline": report.baseline.url if report.baseline else None,
        "target": report.target.url if report.target else None,
        "model": engine.model if engine else None,
        "dataset": ", ".join(each.path for each in report.datasets) or None,
        "imported_from": report.imported_from,
        "unit": "words" if any(sample.unit == "words" for sample in report.samples) else "tokens",
        **{name: getattr(totals, name) for name in _COUNTS},
        "confidence": totals.confidence,
        "rate": totals.rate,
        "rate_low": totals.rate_interval.low,
        "rate_high": totals.rate_interval.high,
        "real_rate": totals.real_rate,
        "real_rate_low": totals.real_interval.low,
        "real_rate_high": totals.real_interval.high,
        "first_difference_median": median(positions) if positions else None,
        "prefix_share": _prefix_share(report),
        "max_delta": max(deltas, default=None),
        "not_numbers": sum(sample.not_numbers for sample in report.samples),
        **{f"noise_{name}": getattr(report.noise, name) for name in _NOISE},
        "gate": report.gate.get("outcome"),
        "error_reasons": dict(Counter(sample.error_reason or "unknown" for sample in report.samples if sample.error)),
    }


def _prefix_share(report: Report) -> float | None:
    """Share of the answers' tokens that stand before the first difference: those behind it have other contexts."""
    longest = shared = 0
    for sample in report.samples:
        if sample.error is None:
            longest += sample.longest
            if sample.flip is not None:
                shared += sample.flip.position
            else:  # a difference may have no known token
                shared += sample.compared_tokens if sample.is_divergent else sample.longest
    return min(1.0, shared / longest) if longest else None


def _oneline(data: Mapping[str, Any]) -> Text:
    share = f"{percent(data['confidence']).removesuffix(' %').rstrip('0').rstrip('.')} %"
    parts = [
        counted(data["samples"], "sample"),
        f"{data['equal']} equal, {data['tie']} tie, {data['real']} real, {data['unclassified']} unclassified",
        counted(data["error"], "error") + (f", {data['empty']} empty" if data["empty"] else ""),
        f"divergence {percent(data['rate'])} ({percent(data['rate_low'])} to {percent(data['rate_high'])}),"
        f" real {percent(data['real_rate'])} ({percent(data['real_rate_low'])} to"
        f" {percent(data['real_rate_high'])}) at {share}",
        f"noise floor {nats(data['noise_largest_shift'])} of {counted(data['noise_answers'], 'answer')}",
    ]
    if data["not_numbers"]:
        parts.append(counted(data["not_numbers"], "logprob is no number", "logprobs are no numbers"))
    if data["gate"]:
        parts.append(f"gate {data['gate']}")
    return verbatim("; ".join(parts))


def _json(data: Mapping[str, Any]) -> Text:
    from ppd_wire.json.strict import to_json

    return verbatim(to_json(data))


def _kv(data: Mapping[str, Any]) -> Text:
    """KEY=VALUE, as a shell reads it; nothing behind = where there is no value."""
    reasons = ",".join(f"{name}:{count}" for name, count in sorted(data["error_reasons"].items()))
    flat = {**data, "error_reasons": reasons}
    lines = (f"{name}={'' if value is None else shlex.quote(str(value))}" for name, value in flat.items())
    return verbatim("\n".join(line.removesuffix("''") for line in lines))


def _table(data: Mapping[str, Any]) -> Table:
    table = Table("figure", "value", show_header=False)
    for name, value in data.items():
        label = _LABELS.get(name, name.replace("_", " "))
        table.add_row(label, Text(_shown(name, value)))
    return table


def _shown(name: str, value: Any) -> str:
    if name.startswith(("rate", "real_rate", "prefix_share")):
        return percent(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {count}" for key, count in value.items())
    if value is not None and name in _IN_NATS:
        return nats(value)
    return f"{value:.4g}" if isinstance(value, float) else ("" if value is None else str(value))
