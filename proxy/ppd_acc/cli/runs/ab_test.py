"""ab-test: does B diverge more often than A? Two batch reports, of the same samples or of different ones.

Shared ids: exact McNemar test over the pairs, and sign flips for what else each sample tells (Holm over these). No id
in common, or --unpaired: Fisher's exact test. The divergence rate alone decides; the other figures are shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from ppd_acc.cli.flags import alpha_flag
from ppd_acc.cli.options import flag, nested, switch
from ppd_acc.compare.decisions import worst
from ppd_acc.data.report import Report, Sample
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Result, Trouble
from ppd_acc.reports.matching import (
    Matched,
    Rate,
    columns,
    ends,
    match,
    mcnemar,
    notes_of,
    plain,
    rate_of,
    rates_table,
    require_pairs,
)
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import span
from ppd_accuracy.statistics import gates
from ppd_accuracy.statistics.significance import Ratio, holm, odds_ratio, paired_odds_ratio, sign_flip

_SEED = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that each sample has in both reports. `difference` is the mean of B minus A; `p_holm` is adjusted for
    the number of these metrics; `resamples` is None where p is exact."""

    name: str
    unit: str
    pairs: int
    difference: float
    p: float
    p_holm: float
    resamples: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tested:
    """One design's figures."""

    test: str
    rates: tuple[Rate, Rate]
    decision: gates.Decision
    odds_ratio: Ratio
    discordant: dict[str, int] | None = None
    metrics: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """How two reports are tested."""

    alpha: float = alpha_flag()
    count_ties: bool = switch("ties are divergences, too (default: they are within the noise floor)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    report_a: str = flag(required=True, metavar="FILE", help="batch report of A")
    report_b: str = flag(required=True, metavar="FILE", help="batch report of B")
    unpaired: bool = switch("the reports are of different samples, even where ids are the same")
    test: Test = nested(Test)


def run(options: Options, _: Surroundings) -> Result:
    test = options.test
    first, second = read_report(options.report_a, "--report-a"), read_report(options.report_b, "--report-b")
    matched = match(first, second)
    is_paired = not options.unpaired and bool(matched.pairs or matched.not_compared)
    tested = _paired(matched, test) if is_paired else _unpaired(first, second, test)
    one, other = tested.rates
    difference = (other.rate or 0.0) - (one.rate or 0.0)
    data: dict[str, Any] = {
        "a": {"path": options.report_a, **plain(one)},
        "b": {"path": options.report_b, **plain(other)},
        "design": "paired" if is_paired else "unpaired",
        "test": tested.test,
        "alpha": test.alpha,
        "counts_ties": test.count_ties,
        "p": tested.decision.p,
        "difference": difference,
        "difference_interval": ends(tested.decision.interval),
        "odds_ratio": plain(tested.odds_ratio),
        "discordant": tested.discordant,
        "metrics": [plain(metric) for metric in tested.metrics],
        "only_in_a": matched.first_only if is_paired else (),
        "only_in_b": matched.second_only if is_paired else (),
        "not_compared": matched.not_compared if is_paired else (),
        "decision": plain(tested.decision),
    }
    view: list[RenderableType] = [rates_table([("A", one), ("B", other)])]
    view.append(f"{data['design']} ({tested.test}): {tested.decision.reason}")
    if tested.decision.interval is not None:
        view.append(f"B minus A: {100 * difference:+.2f} points, interval {span(*tested.decision.interval)}")
    if tested.metrics:
        view.append(_metrics_table(tested.metrics))
    notes = notes_of(matched, "A", "B") if is_paired else ()
    return Result(exit=worst((tested.decision.outcome,)), data=data, view=tuple(view), notes=notes)


def metrics_of(pairs: Sequence[tuple[Sample, Sample]]) -> tuple[Metric, ...]:
    """What the samples tell beside whether they diverged: sign flips of B minus A, Holm over all of them."""
    tested = []
    for name, unit, value in _METRICS:
        values = [(value(one), value(other)) for one, other in pairs]
        changes = [after - before for before, after in values if before is not None and after is not None]
        if changes:
            tested.append((name, unit, len(changes), sum(changes) / len(changes), sign_flip(changes, _SEED)))
    adjusted = holm([flips.p for *_, flips in tested])
    return tuple(
        Metric(name=name, unit=unit, pairs=count, difference=mean, p=flips.p, p_holm=p_holm, resamples=flips.resamples)
        for (name, unit, count, mean, flips), p_holm in zip(tested, adjusted, strict=True)
    )


def _shared(sample: Sample) -> float | None:
    is_told = sample.longest and sample.unit != "words"
    return sample.compared_tokens / sample.longest if is_told else None


_METRICS: tuple[tuple[str, str, Callable[[Sample], float | None]], ...] = (
    ("mean logprob difference", "nats", lambda sample: sample.mean_delta),
    ("largest logprob difference", "nats", lambda sample: sample.max_delta),
    ("share of tokens before the first difference", "share", _shared),
    ("length of the target's answer", "tokens",
     lambda sample: None if sample.unit == "words" else float(len(sample.target.tokens))),
)  # fmt: skip
"""None where the report does not say it; words are not counted as tokens."""


def _paired(matched: Matched, test: Test) -> _Tested:
    require_pairs(matched, "--report-a", "--report-b")
    became, rates, decision = mcnemar(matched.pairs, test.alpha, count_ties=test.count_ties)
    harms, gains, both = len(became.regressions), len(became.fixes), len(became.both)
    return _Tested(
        test="mcnemar",
        rates=rates,
        decision=decision,
        odds_ratio=paired_odds_ratio(gains, harms, 1 - test.alpha),
        discordant={"a_only": gains, "b_only": harms, "both": both, "neither": len(became.neither)},
        metrics=metrics_of(matched.pairs),
    )


def _unpaired(first: Report, second: Report, test: Test) -> _Tested:
    one, other = (rate_of(report.samples, 1 - test.alpha, count_ties=test.count_ties) for report in (first, second))
    for name, rate in (("--report-a", one), ("--report-b", other)):
        if not rate.compared:
            raise Trouble(f"{name}: none of its {rate.errors} samples was compared")
    table = one.hits, one.compared, other.hits, other.compared
    return _Tested(
        test="fisher",
        rates=(one, other),
        decision=gates.unpaired(*table, test.alpha),
        odds_ratio=odds_ratio(*table, 1 - test.alpha),
    )


def _metrics_table(metrics: Sequence[Metric]) -> Table:
    table = columns("per sample", "pairs", "B minus A", "p (sign flips)", "p (Holm)")
    for metric in metrics:
        difference = f"{metric.difference:+.4g} {metric.unit}"
        table.add_row(metric.name, str(metric.pairs), difference, f"{metric.p:.4f}", f"{metric.p_holm:.4f}")
    return table
