"""The figures of a comparison of pd with ppd: per turn, of all later turns, and from where the tokens came. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chat_client import Answer
from command_line import shown, table
from engine_figures import SOURCES
from estimates import Interval, is_wait, median, ratio_of_medians

MODES: Final = ("pd", "ppd")
_SOURCE_NAMES: Final = ("held by D", "moved from P", "computed by D")


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """One turn. `sources` are D's prompt tokens by source, None where no engine told."""

    mode: str
    conversation: int
    turn: int
    answer: Answer
    sources: Mapping[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Later turns (2 and on), ppd against pd, for one measure. `waits` is how many of each mode were left out."""

    measure: str
    turns: Mapping[str, int]
    waits: Mapping[str, int]
    median_s: Mapping[str, float]
    ratio: Interval


Measure = Callable[[TurnResult], float]


def first_token_s(result: TurnResult) -> float:
    """Time to first token; of an answer that was not streamed, the whole time."""
    return result.answer.total_s if result.answer.first_token_s is None else result.answer.first_token_s


def total_s(result: TurnResult) -> float:
    return result.answer.total_s


def select(results: Sequence[TurnResult], mode: str, turn: int) -> list[TurnResult]:
    return [result for result in results if (result.mode, result.turn) == (mode, turn)]


def answers_by_conversation(results: Sequence[TurnResult]) -> list[list[Answer]]:
    """The answers of each conversation of each mode, in the order of its turns."""
    found: dict[tuple[str, int], list[Answer]] = {}
    for result in sorted(results, key=lambda each: each.turn):
        found.setdefault((result.mode, result.conversation), []).append(result.answer)
    return list(found.values())


def turn_numbers(results: Sequence[TurnResult]) -> list[int]:
    """The turns that were measured in both modes."""
    found = [{result.turn for result in results if result.mode == mode} for mode in MODES]
    return sorted(found[0] & found[1])


def median_of(results: Sequence[TurnResult], mode: str, turn: int, measure: Measure) -> float:
    return median([measure(result) for result in select(results, mode, turn)])


def waits(results: Sequence[TurnResult]) -> list[TurnResult]:
    """Turns whose first token came more than `WAIT_S` after the median of their mode and turn."""
    return [
        result
        for mode in MODES
        for turn in turn_numbers(results)
        for limit in [median_of(results, mode, turn, first_token_s)]
        for result in select(results, mode, turn)
        if is_wait(first_token_s(result), limit)
    ]


def compare(
    results: Sequence[TurnResult], measure: Measure, name: str, *, seed: int, without: Sequence[TurnResult] = ()
) -> Comparison | None:
    """ppd against pd over turns 2 and on, leaving out `without`; None when a mode has no such turn."""
    later = [result for result in results if result.turn > 1 and result not in without]
    values: dict[str, list[list[float]]] = {}
    for mode in MODES:
        of_mode = [result for result in later if result.mode == mode]
        if not of_mode:
            return None
        numbers = sorted({result.conversation for result in of_mode})
        values[mode] = [[measure(each) for each in of_mode if each.conversation == number] for number in numbers]
    return Comparison(
        measure=name,
        turns={mode: sum(map(len, values[mode])) for mode in MODES},
        waits={mode: sum(each.mode == mode and each.turn > 1 for each in without) for mode in MODES},
        median_s={mode: median([value for row in values[mode] for value in row]) for mode in MODES},
        ratio=ratio_of_medians(values["ppd"], values["pd"], seed=seed),
    )


def turn_table(results: Sequence[TurnResult], measure: Measure) -> str:
    """Medians per turn, their speed-up, and how ppd served the turn."""
    rows: list[list[str]] = []
    sums = dict.fromkeys(MODES, 0.0)
    for turn in turn_numbers(results):
        times = {mode: median_of(results, mode, turn, measure) for mode in MODES}
        sums = {mode: sums[mode] + times[mode] for mode in MODES}
        ppd = select(results, "ppd", turn)
        tokens = [each.answer.prompt_tokens for each in ppd if each.answer.prompt_tokens is not None]
        rows.append(
            [
                str(turn),
                shown(median(tokens) if tokens else None, digits=0),
                shown(times["pd"], 1e3),
                shown(times["ppd"], 1e3),
                f"{times['pd'] / times['ppd']:.2f}x",
                route_note(ppd),
            ]
        )
    speedup = f"{sums['pd'] / sums['ppd']:.2f}x" if sums["ppd"] else "-"
    rows.append(["Total", "", shown(sums["pd"], 1e3), shown(sums["ppd"], 1e3), speedup, ""])
    return table(["Turn", "Prompt tokens", "PD (ms)", "PPD (ms)", "Speed-up", "PPD note"], rows)


def route_note(results: Sequence[TurnResult]) -> str:
    """How these turns were served, with counts where they differ."""
    names = {"pd": "P->D", "direct": "D-direct"}
    routes = [names.get(result.answer.route, result.answer.route) for result in results]
    counted = {route: routes.count(route) for route in dict.fromkeys(routes)}
    if len(counted) == 1:
        return routes[0]
    return ", ".join(f"{route} {count}" for route, count in counted.items())


def mean_sources(results: Sequence[TurnResult]) -> dict[str, float] | None:
    """Mean prompt tokens by source of the turns whose engines told; None where none did."""
    told = [result.sources for result in results if result.sources is not None]
    if not told:
        return None
    return {source: round(sum(each.get(source, 0.0) for each in told) / len(told), 1) for source in SOURCES}


def source_table(results: Sequence[TurnResult]) -> str | None:
    """Where each turn's prompt tokens came from, mean over conversations; None where no engine told."""
    rows: list[list[str]] = []
    for turn in turn_numbers(results):
        row = [str(turn)]
        for mode in MODES:
            means = mean_sources(select(results, mode, turn))
            row += [shown(means[source] if means else None, digits=0) for source in SOURCES]
        if set(row[1:]) != {"-"}:
            rows.append(row)
    headers = ["Turn", *(f"{mode.upper()}: {name}" for mode in MODES for name in _SOURCE_NAMES)]
    return table(headers, rows) if rows else None


def sentence(comparison: Comparison) -> str:
    """One line for people."""
    ratio, medians, turns = comparison.ratio, comparison.median_s, comparison.turns
    left_out = comparison.waits["pd"] + comparison.waits["ppd"]
    without = f", without {left_out} wait{'s' if left_out > 1 else ''}" if left_out else ""
    return (
        f"{comparison.measure.capitalize()}, median of turns 2 and on{without}: pd {medians['pd'] * 1e3:,.1f} ms, "
        f"ppd {medians['ppd'] * 1e3:,.1f} ms, ppd/pd {ratio.value:.3f} "
        f"(95 % interval {ratio.low:.3f} to {ratio.high:.3f}; {turns['pd']} and {turns['ppd']} turns)"
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "turns": dict(comparison.turns),
        "waits_left_out": dict(comparison.waits),
        "median_s": {mode: round(value, 6) for mode, value in comparison.median_s.items()},
        "ratio": round(comparison.ratio.value, 4),
        "interval_95": [round(comparison.ratio.low, 4), round(comparison.ratio.high, 4)],
    }
