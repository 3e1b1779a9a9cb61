"""entropy: how sure both engines are of what they say, and whether one is surer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from ppd_acc.cli.flags import SIDES, confidence_flag, not_negative, positive
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag, flags, value
from ppd_acc.cli.reports.source import ProxySource, Source, add_source_flags, report_from, source_of
from ppd_acc.data.from_proxy import notes_of
from ppd_acc.outcome import Exit, Mistake, Result
from ppd_acc.reports.entropies import (
    Comparison,
    Series,
    around,
    compare,
    compare_spreads,
    figures,
    series_of,
    shared_positions,
    side_series,
)
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import counted, nats
from ppd_accuracy.answers.distributions import VOCABULARY

_ROUNDING = 1e-3


def _add_sources(parser: argparse.ArgumentParser) -> None:
    add_source_flags(parser)
    for side in SIDES:
        parser.add_argument(
            f"--{side}-logprobs", metavar="FILE", help=f"instead: a JSON list of {{token: logprob}}, the {side}'s"
        )


def _source(given: Given) -> Source | tuple[Path, ...]:
    """A report, or one list of logprobs, or two."""
    baseline, target = (given.flag(f"{side}_logprobs") for side in SIDES)
    if baseline is None and target is None:
        return source_of(given)
    if given.flag("report") is not None or given.flag("from_proxy") is not None:
        raise Mistake("lists of logprobs and a report are both given; give one of them")
    if baseline is None:
        raise Mistake("--baseline-logprobs is missing; --target-logprobs is compared with it")
    return tuple(given.directory / file for file in (baseline, target) if file is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    source: Source | tuple[Path, ...] = flags(_add_sources, _source)
    divergence_index: int | None = value("N", "position of the first difference", not_negative)
    context_window: int = flag(type=not_negative, default=5, metavar="N", help="positions around it (default 5)")
    vocabulary: int = value(
        "N", "tokens of the model, for the upper bounds: only its logarithm matters", positive, VOCABULARY
    )
    confidence_level: float = confidence_flag("default 0.95")


async def run(options: Options, _: Surroundings) -> Result:
    if not isinstance(options.source, tuple):
        return await _of_report(options.source, options)
    baseline, *targets = (
        _read(path, f"--{side}-logprobs", options.vocabulary)
        for side, path in zip(SIDES, options.source, strict=False)
    )  # fmt: skip
    notes: list[str] = []
    if not targets:
        return _result(options, [(baseline, None)], notes)
    lengths = len(baseline.positions), len(targets[0].positions)
    index = options.divergence_index
    if index is not None and index >= max(lengths):
        raise Mistake(f"--divergence-index {index}: the lists have {lengths[0]} and {lengths[1]} positions")
    if lengths[0] != lengths[1]:
        notes.append(f"the lists have {lengths[0]} and {lengths[1]} positions; the first {min(lengths)} are compared")
    if index is None:
        notes.append("all positions are taken to have the same context; --divergence-index N stops behind the first")
    return _result(options, [(baseline, targets[0])], notes)


async def _of_report(source: Source, options: Options) -> Result:
    report = await report_from(source)
    samples = [sample for sample in report.samples if sample.error is None and sample.unit == "tokens"]
    pairs = [
        (side_series(sample.baseline, options.vocabulary), side_series(sample.target, options.vocabulary))
        for sample in samples
    ]
    shared = [shared_positions(sample) for sample in samples]
    if not any(one.known or other.known for one, other in pairs):
        where = f"{source.flag} {source.name}"
        raise Mistake(f"{where}: no sample has logprobs; batch-compare writes them, the published tool does not")
    notes = [*notes_of(report)]
    spreads = compare_spreads(samples, options.confidence_level)
    if spreads is not None:
        notes.append(
            f"compared are the likeliest tokens of {counted(spreads.change.count, 'sample')}, with bounds for"
            f" {VOCABULARY:,} tokens; the table is of the chosen ones"
        )
    elif not any(sample.baseline.tops or sample.target.tops for sample in report.samples):
        notes.append("only the chosen tokens' logprobs are there: bounds are wide, differences are of those tokens")
        if isinstance(source, ProxySource):
            notes.append("a proxy started with --shadow-top-logprobs compares the likeliest tokens of its samples")
    return _result(options, pairs, notes, shared, spreads)


def _result(
    options: Options, pairs: Sequence[tuple[Series, Series | None]], notes: list[str],
    shared: Sequence[int] | None = None, spreads: Comparison | None = None,
) -> Result:  # fmt: skip
    baselines = [one for one, _ in pairs]
    targets = [other for _, other in pairs if other is not None]
    index = options.divergence_index
    limits = shared if shared is not None else [index + 1 if index is not None else None] * len(pairs)
    cut = [
        (Series(positions=one.positions[:limit]), Series(positions=other.positions[:limit]))
        for (one, other), limit in zip(pairs, limits, strict=True)
        if other is not None
    ]
    comparison = spreads or compare(cut, options.confidence_level)
    data: dict[str, Any] = {
        "samples": len(pairs),
        "vocabulary": options.vocabulary,
        "confidence": options.confidence_level,
        "baseline": figures(baselines),
        "target": figures(targets) if targets else None,
        "comparison": _plain(comparison) if comparison is not None else None,
    }
    if shared is None:
        data["positions"] = [
            [asdict(each) if each is not None else None for each in one.positions] for one in (*baselines, *targets)
        ]
    if index is not None:
        sides = (("baseline", baselines), ("target", targets))
        data["at"] = {name: around(series[0], index, options.context_window) for name, series in sides if series}
    view: list[RenderableType] = [_table(data)]
    if comparison is not None:
        view.append(_sentence(comparison, options.confidence_level))
    for name, at in data.get("at", {}).items():
        view.append(f"{name} at {index}: {_range(at)}; mean around it {nats(at['context_mean'])}")
    dropped = sum(one.dropped for one in (*baselines, *targets))
    if dropped:
        some = counted(dropped, "logprob that is no finite number", "logprobs that are no finite numbers")
        notes.append(f"left out: {some}")
    return Result(exit=Exit.PASS, data=data, view=tuple(view), notes=tuple(notes))


def _plain(comparison: Comparison) -> dict[str, Any]:
    change = comparison.change
    return {
        "unit": comparison.unit,
        "count": change.count,
        "positions": comparison.positions,
        "mean_change": change.mean,
        "interval": list(change.interval) if change.interval is not None else None,
        "p": change.p,
        "true_change_low": comparison.low,
        "true_change_high": comparison.high,
    }


def _sentence(comparison: Comparison, confidence: float) -> str:
    change = comparison.change
    interval = ""
    if change.interval is not None:
        low, high = change.interval
        interval = f" ({low:.4g} to {high:.4g} at {100 * confidence:g} %, p {change.p:.3g})"
    verdict = "no difference shown"
    if change.interval is not None and not change.interval.low <= 0 <= change.interval.high:
        verdict = f"the target is {'less' if change.mean > 0 else 'more'} certain"
    return (
        f"target minus baseline over {change.count} {comparison.unit}, {comparison.positions} positions in the same"
        f" context: {change.mean:+.4g} nats{interval}: {verdict}; the missing mass allows {comparison.low:.4g} to"
        f" {comparison.high:.4g}"
    )


def _range(at: dict[str, float | None]) -> str:
    return "unknown" if at["low"] is None else f"{at['low']:.4g} to {at['high']:.4g} nats"


def _table(data: dict[str, Any]) -> Table:
    table = Table("engine", "positions", "entropy, mean", "median", "p95", "max", "not listed, mean", "not listed, max")
    for name in ("baseline", "target"):
        entropies = data[name]
        if entropies is None:
            continue
        ranges = (_pair(entropies["low"][key], entropies["high"][key]) for key in ("mean", "median", "p95", "max"))
        rest = (entropies["rest"][key] for key in ("mean", "max"))
        shares = ("" if each is None else f"{each:.3%}" for each in rest)
        table.add_row(name, str(entropies["count"]), *ranges, *shares)
    return table


def _pair(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _read(path: Path, flag: str, vocabulary: int) -> Series:
    """A JSON list of objects; Python's NaN and Infinity are read, and counted. Raises Mistake."""
    name = f"{flag} {path}"
    try:
        positions = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"{name}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{name}: not valid JSON: {error}") from None
    if not isinstance(positions, list) or not positions:
        raise Mistake(f"{name}: it must be a list of objects, one per position, with at least one")
    tops: list[dict[str, float]] = []
    for position, each in enumerate(positions):
        if not isinstance(each, dict):
            raise Mistake(f"{name}: position {position} is {type(each).__name__}; it must be an object")
        for token, logprob in each.items():
            if isinstance(logprob, bool) or not isinstance(logprob, int | float):
                raise Mistake(f"{name}: position {position}, token {token!r} is {logprob!r}; it must be a number")
            if _ROUNDING < logprob < float("inf"):
                raise Mistake(f"{name}: position {position}, token {token!r} is {logprob!r}; a logprob is 0 or less")
        tops.append({token: _number(logprob) for token, logprob in each.items()})
    return series_of(tops, vocabulary)


def _number(value: float) -> float:
    """Rounding above 0 is none; whole numbers too large for a float are infinite."""
    if value < -1e300:
        return float("-inf")
    return min(0.0, float(value)) if value <= _ROUNDING else float(value)
