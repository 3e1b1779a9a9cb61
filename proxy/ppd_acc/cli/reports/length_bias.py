"""length-bias: are the target's answers systematically longer or shorter? In tokens, with cut answers as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from ppd_acc.cli.flags import alpha_flag, between
from ppd_acc.cli.options import value
from ppd_acc.cli.reports.source import Source, report_from, source_flags
from ppd_acc.compare.decisions import worst
from ppd_acc.data.from_proxy import notes_of as proxy_notes_of
from ppd_acc.data.report import Report, Sample
from ppd_acc.outcome import Mistake, Result, Trouble
from ppd_acc.reports.matching import columns, plain
from ppd_acc.surroundings import Surroundings
from ppd_accuracy.answers.lengths import LengthBias, LengthPair, finish_table, judge, length_bias
from ppd_accuracy.statistics.significance import Mean

_SEED = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    source: Source = source_flags(limit_flag="--proxy-limit")
    alpha: float = alpha_flag()
    limit: float | None = value("N", "mean difference that is allowed either way, in tokens", between(0, 1e9))


async def run(options: Options, _: Surroundings) -> Result:
    report = await report_from(options.source, has_both_answers=True)
    result = result_of(report, options.source.name, options.alpha, options.limit)
    return replace(result, notes=(*proxy_notes_of(report), *result.notes))


def result_of(report: Report, name: str, alpha: float, limit_tokens: float | None) -> Result:
    """The lengths of one report's answers, judged. Words count where a report has nothing but words."""
    compared = [sample for sample in report.samples if sample.is_compared]
    if not report.samples:
        raise Mistake(f"--report {name}: no samples")
    if not compared:
        raise Trouble(f"--report {name}: none of its {len(report.samples)} samples was compared")
    unit: Literal["tokens", "words"] = "tokens" if any(sample.unit == "tokens" for sample in compared) else "words"
    used = [sample for sample in compared if sample.unit == unit]
    pairs = pairs_of(used)
    bias = length_bias(pairs, 1 - alpha, _SEED)
    decision = judge(bias, alpha, limit_tokens)
    reasons = [{"baseline": one, "target": other, "pairs": count} for one, other, count in finish_table(pairs)]
    data: dict[str, Any] = {
        "report": name,
        "unit": unit,
        "alpha": alpha,
        "limit": limit_tokens,
        **plain(bias),
        "finish_reasons": reasons,
        "samples": [_row(sample, pair) for sample, pair in zip(used, pairs, strict=True)],
        "decision": plain(decision),
    }
    notes = []
    if unit == "words":
        notes.append("lengths are in words: the report has no tokens")
    for count, what in (
        (len(compared) - len(used), "are in words and were left out"),
        (sum(sample.status == "error" for sample in report.samples), "were not compared (error rows)"),
        (sum(sample.status == "empty" for sample in report.samples), "were not compared (empty on both sides)"),
    ):
        if count:
            notes.append(f"{count} of {len(report.samples)} samples {what}")
    view = (_table(bias, unit), _finish_table(reasons), decision.reason.replace("tokens", unit))
    return Result(exit=worst((decision.outcome,)), data=data, view=view, notes=tuple(notes))


def pairs_of(samples: Sequence[Sample]) -> list[LengthPair]:
    sides = ((sample.baseline, sample.target) for sample in samples)
    return [
        LengthPair(len(one.tokens), len(other.tokens), one.finish_reason, other.finish_reason) for one, other in sides
    ]


def _row(sample: Sample, pair: LengthPair) -> dict[str, Any]:
    difference = pair.target_tokens - pair.baseline_tokens
    return {"sample_id": sample.sample_id, **pair._asdict(), "difference": difference}


def _table(bias: LengthBias, unit: str) -> Table:
    table = columns("target minus baseline", "pairs", unit, "interval", "p")
    table.add_row("answers not cut (Student's t)", *_mean(bias.complete))
    table.add_row("answers not cut (sign flips)", str(bias.complete.count), "", "", f"{bias.flips.p:.4f}")
    if bias.censored:
        table.add_row("lengths up to the limit (Student's t)", *_mean(bias.seen))
        table.add_row("all, cut ones as such (Gehan score)", str(bias.pairs), "", "", f"{bias.score.p:.4f}")
    signs = bias.signs
    counts = f"{signs.target_longer} longer, {signs.target_shorter} shorter, {signs.equal} equal"
    known, unknown = str(bias.pairs - signs.unknown), f"{signs.unknown} unknown"
    table.add_row("which is longer (sign test)", known, counts, unknown, f"{signs.p:.4f}")
    return table


def _mean(mean: Mean) -> tuple[str, str, str, str]:
    interval = "none" if mean.interval is None else f"{mean.interval.low:.2f} to {mean.interval.high:.2f}"
    return str(mean.count), f"{mean.mean:+.2f}", interval, "none" if mean.p is None else f"{mean.p:.4f}"


def _finish_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = columns("baseline ended by", "target ended by", "pairs")
    for row in rows:
        table.add_row(*(Text(str(row[side] or "unknown")) for side in ("baseline", "target")), str(row["pairs"]))
    return table
