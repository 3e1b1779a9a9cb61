"""Two batch reports side by side: which samples they share, and which of those diverged in which.

A sample that was not compared (an error row, or empty answers) in either report is left out and listed. A tie is not
counted as a divergence unless that is asked for: it is within the measured noise floor of its own run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from ppd_acc.data.report import Report, Sample, by_id
from ppd_acc.outcome import Mistake, Trouble
from ppd_acc.views import counted, percent, span
from ppd_accuracy.statistics import gates
from ppd_accuracy.statistics.gates import Decision
from ppd_accuracy.statistics.intervals import Interval, wilson

_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`hits` of the `compared` samples; the interval is Wilson's."""

    compared: int
    hits: int
    ties: int
    errors: int
    rate: float | None
    interval: Interval
    empty: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """`pairs` were compared in both reports, in the first one's order; `not_compared` are in both, but an error row, or
    empty on both sides, in one of them. `changed_prompts`: pairs whose prompts are not the same, so they may not be the
    same samples."""

    pairs: tuple[tuple[Sample, Sample], ...]
    not_compared: tuple[str, ...]
    first_only: tuple[str, ...]
    second_only: tuple[str, ...]
    changed_prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Ids of pairs by what became of them; `both` diverged twice, `neither` not once."""

    regressions: tuple[str, ...]
    fixes: tuple[str, ...]
    both: tuple[str, ...]
    neither: tuple[str, ...]


def match(first: Report, second: Report) -> Matched:
    """Pairs of samples with one id."""
    ones, others = by_id(first), by_id(second)
    shared = [(sample, others[name]) for name, sample in ones.items() if name in others]
    pairs = tuple((one, other) for one, other in shared if one.is_compared and other.is_compared)
    return Matched(
        pairs=pairs,
        not_compared=tuple(one.sample_id for one, other in shared if not (one.is_compared and other.is_compared)),
        first_only=tuple(name for name in ones if name not in others),
        second_only=tuple(name for name in others if name not in ones),
        changed_prompts=tuple(
            one.sample_id for one, other in pairs if (one.prompt, one.messages) != (other.prompt, other.messages)
        ),
    )


def require_pairs(matched: Matched, first: str, second: str) -> None:
    """Raises Mistake where the reports share no id, Trouble where no shared sample was compared in both."""
    if not matched.pairs and not matched.not_compared:
        raise Mistake(
            f"{first} and {second} have no sample_id in common: {len(matched.first_only)} ids only in the first,"
            f" {len(matched.second_only)} only in the second; both must be runs of one dataset"
        )
    if not matched.pairs:
        raise Trouble(
            f"none of the {len(matched.not_compared)} shared samples was compared in both {first} and {second}"
        )


def is_hit(sample: Sample, *, count_ties: bool) -> bool:
    """Whether a compared sample counts as divergent."""
    return sample.is_divergent and (count_ties or sample.status != "tie")


def changes(pairs: Sequence[tuple[Sample, Sample]], *, count_ties: bool) -> Changes:
    """The pairs by what became of them."""
    found: dict[tuple[bool, bool], list[str]] = {}
    for one, other in pairs:
        key = is_hit(one, count_ties=count_ties), is_hit(other, count_ties=count_ties)
        found.setdefault(key, []).append(one.sample_id)
    return Changes(
        regressions=tuple(found.get((False, True), ())),
        fixes=tuple(found.get((True, False), ())),
        both=tuple(found.get((True, True), ())),
        neither=tuple(found.get((False, False), ())),
    )


def rate_of(samples: Sequence[Sample], confidence: float, *, count_ties: bool) -> Rate:
    """The share of divergent ones among the compared ones."""
    compared = [sample for sample in samples if sample.is_compared]
    empty = sum(sample.status == "empty" for sample in samples)
    hits = sum(is_hit(sample, count_ties=count_ties) for sample in compared)
    return Rate(
        compared=len(compared),
        hits=hits,
        ties=sum(sample.status == "tie" for sample in compared),
        errors=len(samples) - len(compared) - empty,
        empty=empty,
        rate=hits / len(compared) if compared else None,
        interval=wilson(hits, len(compared), confidence),
    )


def mcnemar(
    pairs: Sequence[tuple[Sample, Sample]], alpha: float, *, count_ties: bool
) -> tuple[Changes, tuple[Rate, Rate], Decision]:
    """Regressions against fixes: what became of the pairs, both rates, and whether one is more than the other."""
    became = changes(pairs, count_ties=count_ties)
    rates = (
        rate_of([one for one, _ in pairs], 1 - alpha, count_ties=count_ties),
        rate_of([other for _, other in pairs], 1 - alpha, count_ties=count_ties),
    )
    counts = len(became.regressions), len(became.fixes), len(became.both)
    return became, rates, gates.paired(*counts, len(pairs), alpha)


def notes_of(matched: Matched, first: str, second: str) -> tuple[str, ...]:
    """What is to be known about the samples that no pair came of; `first` and `second` name the reports."""
    told = []
    for ids, what in (
        (matched.first_only, f"only in {first}"),
        (matched.second_only, f"only in {second}"),
        (matched.not_compared, "not compared in one of the reports (error rows, empty answers)"),
        (matched.changed_prompts, "with another prompt in each report; are they the same samples?"),
    ):
        if ids:
            told.append(f"{counted(len(ids), 'sample')} {what}: {listed(ids)}")
    return tuple(told)


def listed(ids: Sequence[str], most: int = _LISTED) -> str:
    """Ids in a line; the JSON has all of them."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def rates_table(rows: Sequence[tuple[str, Rate]]) -> Table:
    table = columns("report", "compared", "divergent", "rate", "interval", "ties", "errors")
    for name, rate in rows:
        counts = (str(rate.compared), str(rate.hits), percent(rate.rate), span(*rate.interval), str(rate.ties))
        table.add_row(Text(name), *counts, str(rate.errors))
    return table


def columns(*names: str) -> Table:
    """A table that reads the same on a terminal and in a file."""
    return Table(*names, box=None, pad_edge=False)


def plain(value: Any) -> dict[str, Any]:
    """A dataclass for JSON; intervals have named ends there."""
    found = _named(asdict(value))
    assert isinstance(found, dict)
    return found


def _named(value: Any) -> Any:
    if isinstance(value, Interval):
        return ends(value)
    return {name: _named(each) for name, each in value.items()} if isinstance(value, dict) else value


def ends(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()
