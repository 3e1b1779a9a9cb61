"""The figures of the benchmarks, drawn without a display. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chat_client import Answer
from comparison import MODES, TurnResult, first_token_s, mean_sources, median_of, select, turn_numbers, waits
from engine_figures import SOURCES

MODE_COLOURS: Final = ("#b4531a", "#1f6fb2")
SOURCE_COLOURS: Final = ("#cfd8e3", "#e0975c", "#5b9bd0")
SOURCE_LABELS: Final = ("held by D", "moved from P", "computed by D")
GREY: Final = "#5c6670"
DPI: Final = 150


def new_axes(count: int, size_inches: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with `count` plain axes side by side."""
    figure = Figure(figsize=size_inches, layout="constrained")
    found = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(colors=GREY)
        axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, found


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11)


def draw_comparison(results: Sequence[TurnResult], path: Path) -> None:
    """Left: time to first token of every turn and the medians. Right: where D's prompt tokens came from, where told."""
    turns = turn_numbers(results)
    has_sources = any(result.sources for result in results)
    figure, axes = new_axes(1 + has_sources, (11.0 if has_sources else 6.0, 4.2))
    _draw_times(axes[0], results, turns)
    if has_sources:
        _draw_mode_sources(axes[1], results, turns)
    save(figure, path)


def _draw_times(axes: Axes, results: Sequence[TurnResult], turns: Sequence[int]) -> None:
    for mode, colour, shift in zip(MODES, MODE_COLOURS, (-0.14, 0.14), strict=True):
        medians = [median_of(results, mode, turn, first_token_s) * 1e3 for turn in turns]
        places = [turn + shift for turn in turns]
        axes.plot(places, medians, color=colour, linewidth=1.2, alpha=0.55)
        for turn, place in zip(turns, places, strict=True):
            times = [first_token_s(result) * 1e3 for result in select(results, mode, turn)]
            spread = [place + 0.05 * ((number % 5) - 2) / 2 for number in range(len(times))]
            axes.scatter(spread, times, s=14, color=colour, alpha=0.35, linewidths=0)
        axes.scatter(places, medians, s=46, marker="D", color=colour, label=f"{mode}, median", zorder=3)
    late = waits(results)
    kept = [first_token_s(result) * 1e3 for result in results if result not in late]
    top = max(kept) * 1.15
    hidden = sum(first_token_s(result) * 1e3 > top for result in late)
    axes.set_ylim(0, top)
    axes.set_xticks(list(turns))
    axes.set_xlabel("turn")
    title(axes, "Time to first token (ms)" + (f"; {hidden} beyond the axis" if hidden else ""))
    axes.legend(frameon=False)


def _draw_mode_sources(axes: Axes, results: Sequence[TurnResult], turns: Sequence[int]) -> None:
    for mode, shift in zip(MODES, (-0.2, 0.2), strict=True):
        means = [mean_sources(select(results, mode, turn)) or {} for turn in turns]
        heights = [0.0] * len(turns)
        places = [turn + shift for turn in turns]
        for source, colour, label in zip(SOURCES, SOURCE_COLOURS, SOURCE_LABELS, strict=True):
            values = [mean.get(source, 0.0) for mean in means]
            shown_label = label if mode == MODES[0] else None
            axes.bar(places, values, 0.36, bottom=heights, color=colour, label=shown_label)
            heights = [height + value for height, value in zip(heights, values, strict=True)]
        for place, height in zip(places, heights, strict=True):
            axes.annotate(
                mode, (place, height), (0, 3), textcoords="offset points", ha="center", fontsize=7, color=GREY
            )
    axes.set_xticks(list(turns))
    axes.set_xlabel("turn")
    axes.set_ylim(0, max(axes.dataLim.y1, 1.0) * 1.22)
    title(axes, "Prompt tokens of the decode engine, by source")
    axes.legend(frameon=False, ncols=3, loc="upper left", fontsize=9, columnspacing=1.0, handlelength=1.2)


def draw_turns(answers: Sequence[Answer], path: Path) -> None:
    """One conversation: times per turn on the left, cached and other prompt tokens on the right."""
    turns = list(range(1, len(answers) + 1))
    figure, axes = new_axes(2, (10.0, 4.0))
    totals = [answer.total_s * 1e3 for answer in answers]
    first = [(answer.first_token_s or answer.total_s) * 1e3 for answer in answers]
    for values, label, colour in ((totals, "whole answer", MODE_COLOURS[0]), (first, "first token", MODE_COLOURS[1])):
        axes[0].plot(turns, values, marker="o", color=colour, label=label)
    axes[0].set_ylim(0, max(totals) * 1.25)
    title(axes[0], "Time (ms)")
    cached = [answer.cached_tokens or 0 for answer in answers]
    others = [(answer.prompt_tokens or 0) - (answer.cached_tokens or 0) for answer in answers]
    axes[1].bar(turns, cached, 0.6, color=SOURCE_COLOURS[0], label="cached")
    axes[1].bar(turns, others, 0.6, bottom=cached, color=SOURCE_COLOURS[2], label="not cached")
    for turn, answer in zip(turns, answers, strict=True):
        axes[1].annotate(
            answer.route, (turn, answer.prompt_tokens or 0), (0, 3), textcoords="offset points", ha="center",
            fontsize=8, color=GREY,
        )  # fmt: skip
    title(axes[1], "Prompt tokens as usage tells, and the route")
    axes[1].set_ylim(0, max(axes[1].dataLim.y1, 1.0) * 1.22)
    for each in axes:
        each.set_xticks(turns)
        each.set_xlabel("turn")
        each.legend(frameon=False, ncols=2, loc="upper left", fontsize=9)
    save(figure, path)


def draw_bandwidth(
    megabytes: Sequence[float],
    apparent: Sequence[float],
    measured: Sequence[float | None],
    limits: Sequence[tuple[str, float]],
    path: Path,
) -> None:
    """GB/s against MB per handoff, with the practical limits of common links as lines."""
    figure, (axes,) = new_axes(1, (7.0, 4.4))
    axes.plot(megabytes, apparent, marker="o", color=MODE_COLOURS[0], label="apparent")
    told = [(size, value) for size, value in zip(megabytes, measured, strict=True) if value is not None]
    if told:
        axes.plot(*zip(*told, strict=True), marker="D", color=MODE_COLOURS[1], label="as the engine measures it (NIXL)")
    for name, gigabytes_per_s in limits:
        axes.axhline(gigabytes_per_s, color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(
            name, (1.0, gigabytes_per_s), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color=GREY,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left=0)
    axes.set_xlabel("KV cache per handoff (MB)")
    title(axes, "KV transfer bandwidth (GB/s)")
    axes.legend(frameon=False, loc="best")
    save(figure, path)
