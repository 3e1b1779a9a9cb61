"""The figures of the benchmarks that load a proxy. Needs matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes

from figures import GREY, MODE_COLOURS, new_axes, save, title

KIND_LABELS: Final = (("json", "JSON"), ("sse", "SSE"))
Summary = Mapping[str, Mapping[str, Mapping[str, float]]]


def _bars(axes: Axes, names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], digits: int) -> None:
    """Lying bars, one group per name and one colour per series, each with its figure; what is far longer than the
    rest is cut at the edge, with an arrow at its figure."""
    height = 0.8 / len(series)
    every = sorted(value for _, values in series for value in values)
    edge = min(every[-1], 4 * every[len(every) // 2]) or 1.0
    for number, (label, values) in enumerate(series):
        places = [place + (number - (len(series) - 1) / 2) * height for place in range(len(names))]
        axes.barh(places, [min(each, edge) for each in values], height * 0.92, color=MODE_COLOURS[number], label=label)
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:.{digits}f}" + (" \N{RIGHTWARDS ARROW}" if value > edge else ""), (min(value, edge), place),
                (3, 0), textcoords="offset points", va="center", fontsize=7, color=GREY,
            )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, edge * 1.2)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#e6e9ed", linewidth=0.8)


def draw_overhead(summary: Summary, connections: int, measured_on: str, path: Path) -> None:
    """CPU per turn; latency at 99 % of many connections; what is added to the first token, with two bare hops."""
    names = list(summary)
    figure, axes = new_axes(3, (15.0, 1.9 + 0.62 * len(names)))
    for place, field, text in (
        (0, "cpu_ms_per_turn", "CPU per turn (ms)"),
        (1, "p99_ms", f"Latency at {connections} connections, p99 (ms)"),
    ):
        series = [(label, [summary[name][kind][field] for name in names]) for kind, label in KIND_LABELS]
        _bars(axes[place], names, series, digits=3 - 2 * place)
        title(axes[place], text)
    added = [max(summary[name]["first_token"]["added_ms"], 0.0) for name in names]
    _bars(axes[2], names, [("p50 over the engine's own", added)], digits=3)
    hops = [summary[name]["first_token"]["hops_ms"] for name in names]
    bare = sorted(hops)[len(hops) // 2]
    axes[2].axvline(bare, color=MODE_COLOURS[1], linewidth=1.2, linestyle="--", label=f"two bare hops: {bare:.3f}")
    title(axes[2], "Added to the first token, 1 connection (ms)")
    for each in (axes[1], axes[2]):
        each.set_yticklabels([])
    for each in axes:
        each.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2)
    figure.supxlabel("\n".join(textwrap.wrap(measured_on, 180)), fontsize=7, color=GREY)
    save(figure, path)
