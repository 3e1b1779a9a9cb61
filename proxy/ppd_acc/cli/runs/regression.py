"""regression: which samples diverge now that did not before, and is that more than chance?

Two runs of one dataset. Exact McNemar test of regressions against fixes: significantly more regressions fail,
significantly more fixes or no change at all pass, anything else is inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_acc.cli.options import flag, nested
from ppd_acc.cli.runs.ab_test import Test
from ppd_acc.compare.decisions import worst
from ppd_acc.data.report import Sample
from ppd_acc.data.report_files import read_report
from ppd_acc.outcome import Result
from ppd_acc.reports.matching import columns, ends, match, mcnemar, notes_of, plain, rates_table, require_pairs
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import span

_SHOWN = 20
_PROMPT_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    baseline: str = flag(required=True, metavar="FILE", help="batch report of before")
    current: str = flag(required=True, metavar="FILE", help="batch report of now")
    test: Test = nested(Test)


def run(options: Options, _: Surroundings) -> Result:
    test = options.test
    before, now = read_report(options.baseline, "--baseline"), read_report(options.current, "--current")
    matched = match(before, now)
    require_pairs(matched, "--baseline", "--current")
    became, rates, decision = mcnemar(matched.pairs, test.alpha, count_ties=test.count_ties)
    pairs = {one.sample_id: (one, other) for one, other in matched.pairs}
    regressions = [change_of(*pairs[name]) for name in became.regressions]
    fixes = [change_of(*pairs[name]) for name in became.fixes]
    data: dict[str, Any] = {
        "baseline": {"path": options.baseline, **plain(rates[0])},
        "current": {"path": options.current, **plain(rates[1])},
        "pairs": len(matched.pairs),
        "regressions": regressions,
        "fixes": fixes,
        "still_divergent": became.both,
        "still_equal": len(became.neither),
        "test": "mcnemar",
        "p": decision.p,
        "alpha": test.alpha,
        "counts_ties": test.count_ties,
        "difference_interval": ends(decision.interval),
        "only_in_baseline": matched.first_only,
        "only_in_current": matched.second_only,
        "not_compared": matched.not_compared,
        "decision": plain(decision),
    }
    view: list[RenderableType] = [rates_table([("baseline", rates[0]), ("current", rates[1])]), decision.reason]
    if decision.interval is not None:
        view.append(f"current minus baseline: interval {span(*decision.interval)}")
    view += [changes_table(what, rows) for what, rows in (("regression", regressions), ("fix", fixes)) if rows]
    notes = notes_of(matched, "the baseline report", "the current report")
    return Result(exit=worst((decision.outcome,)), data=data, view=tuple(view), notes=notes)


def change_of(before: Sample, now: Sample) -> dict[str, Any]:
    """One sample in both runs."""
    return {
        "sample_id": before.sample_id,
        "unit": now.unit,
        "before": {"status": before.status, "first_divergence": before.first_divergence},
        "now": {"status": now.status, "first_divergence": now.first_divergence},
        "prompt": before.question or now.question,
    }


def changes_table(what: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """At most _SHOWN rows; the JSON has all of them."""
    table = columns(what, "before", "now", "first difference", "prompt")
    for row in rows[:_SHOWN]:
        statuses = row["before"]["status"], row["now"]["status"]
        prompt = Text(" ".join(row["prompt"].split())[:_PROMPT_CHARACTERS])
        table.add_row(Text(row["sample_id"]), *statuses, _where(row), prompt)
    if len(rows) > _SHOWN:
        table.add_row(f"and {len(rows) - _SHOWN} more", "", "", "", "")
    return table


def _where(row: Mapping[str, Any]) -> str:
    places = [row[side]["first_divergence"] for side in ("before", "now")]
    words = ["none" if place is None else f"{row['unit'][:-1]} {place}" for place in places]
    return words[0] if words[0] == words[1] else " -> ".join(words)
