"""The figures of the benchmarks that load a proxy. Needs matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes

from figures import GREY, MODE_COLOURS, SOURCE_COLOURS, new_axes, save, title

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


def draw_streams(results: Sequence[Mapping[str, Any]], limit_ms: float, measured_on: str, path: Path) -> None:
    """Delay of events, memory of a stream and cores of each process, one bar group per load."""
    figure, axes = new_axes(3, (13.0, 2.4 + 0.62 * len(results)))
    loads = [f"{each['open_at_the_end']:,} streams\nof {each['load'].partition('@')[2]}/s" for each in results]
    delays = [(f"p{share}", [each[f"delay_p{share}_ms"] for each in results]) for share in (50, 99)]
    _bars(axes[0], loads, delays, digits=1)
    axes[0].axvline(limit_ms, color=GREY, linewidth=1.0, linestyle="--", label=f"limit: {limit_ms:g}")
    title(axes[0], "Delay of events (ms)")
    _bars(axes[1], loads, [("resident", [each["kb_per_stream"] or 0.0 for each in results])], digits=1)
    title(axes[1], "Memory of a stream in the proxy (KB)")
    left = [0.0] * len(results)
    shares = [(name, [each["cores"][name] for each in results]) for name in ("proxy", "engine", "client")]
    shares.append(("other work", [each["others_cores"] for each in results]))
    for (name, values), colour in zip(shares, (*MODE_COLOURS, *SOURCE_COLOURS[::2]), strict=False):
        axes[2].barh(range(len(results)), values, 0.6, left=left, color=colour, label=name)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes[2].invert_yaxis()
    axes[2].set_yticks(range(len(results)), [""] * len(results))
    title(axes[2], "Busy cores while measuring")
    axes[1].set_yticklabels([])
    for each in axes:
        each.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)
    figure.supxlabel("\n".join(textwrap.wrap(measured_on, 170)), fontsize=7, color=GREY)
    save(figure, path)


def draw_endurance(found: Mapping[str, Any], measured_on: str, path: Path) -> None:
    """Resident memory and open descriptors of the proxy over the requests; the second half is shaded."""
    figure, axes = new_axes(2, (12.0, 4.2))
    thousands = [look["requests"] / 1000 for look in found["looks"]]
    megabytes = [look["resident_kb"] / 1024 for look in found["looks"]]
    axes[0].plot(thousands, megabytes, color=MODE_COLOURS[0], linewidth=1.4)
    axes[0].set_ylim(0, max(megabytes) * 1.2)
    title(axes[0], f"Resident memory (MB); spread of the second half {found['spread_percent']:.2f} %")
    axes[1].plot(thousands, [look["descriptors"] for look in found["looks"]], color=MODE_COLOURS[1], linewidth=1.0)
    axes[1].axhline(found["descriptors_start"], color=GREY, linewidth=1.0, linestyle="--", label="before the load")
    axes[1].scatter([thousands[-1]], [found["descriptors_end"]], color=MODE_COLOURS[0], zorder=3, label="after it")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 0.08))
    title(axes[1], "Open descriptors")
    for each in axes:
        each.axvspan(thousands[-1] / 2, thousands[-1], color="#f3f5f7", zorder=0)
        each.set_xlim(0, thousands[-1] * 1.02)
        each.set_xlabel("requests (thousands)")
    figure.supxlabel("\n".join(textwrap.wrap(measured_on, 160)), fontsize=7, color=GREY)
    save(figure, path)
