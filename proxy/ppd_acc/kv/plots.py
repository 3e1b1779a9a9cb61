"""Pictures of `check-kv`. matplotlib is an extra: it is imported when a picture is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppd_acc.outcome import Mistake, Trouble
from ppd_accuracy.kv.blend import Blend

_SUFFIXES = (".png", ".svg", ".pdf")
_LEAST_ERROR = 1e-8


def check_plot(path: Path) -> None:
    """Raises Mistake before any work is done where the picture could not be drawn."""
    if path.suffix.lower() not in _SUFFIXES:
        raise Mistake(f"--plot is {path.name!r}; it must end in {', '.join(_SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise Mistake("--plot needs matplotlib: pip install 'ppd-proxy[plot]'")


def draw_heat_map(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Arrays x tokens, colour by relative L2 on a logarithmic scale; grey where something is not finite."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    longest = max((int(row["tokens"]) for row in rows), default=1)
    columns = max((len(row["starts"]) for row in rows), default=1)
    table = np.full((max(1, len(rows)), columns), np.nan)
    for place, row in enumerate(rows):
        sources = np.arange(columns) * len(row["starts"]) // columns
        values = np.array(row["relative_l2"], np.float64)[sources]
        table[place] = np.where(np.isfinite(values), np.maximum(values, _LEAST_ERROR), np.nan)
    figure = Figure(figsize=(10, min(40, 2 + 0.16 * len(rows))), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("0.6")
    highest = float(np.nanmax(table)) if np.isfinite(table).any() else 1.0
    norm = LogNorm(_LEAST_ERROR, max(highest, 10 * _LEAST_ERROR))
    image = axes.imshow(
        np.ma.masked_invalid(table),
        aspect="auto",
        interpolation="nearest",
        norm=norm,
        extent=(0, longest, len(rows), 0),
    )
    step = max(1, len(rows) // 40)
    axes.set_yticks(np.arange(0, len(rows), step) + 0.5, [row["name"] for row in rows[::step]], fontsize=7)
    axes.set_xlabel("token")
    axes.set_title("Relative L2 of target against baseline")
    figure.colorbar(image, label=f"largest relative L2 ({_LEAST_ERROR:g} or less: equal)")
    _save(figure, path)


def draw_histogram(path: Path, view: Blend) -> None:
    """KV deviation per token at the first check layer, and what recomputing a share of the tokens covers."""
    from matplotlib.figure import Figure

    counts, edges = view.histogram
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.stairs(counts, edges, fill=True)
    left.set_yscale("symlog", linthresh=1)
    left.set_xlabel("squared difference of V, summed over heads and channels")
    left.set_ylabel("tokens")
    left.set_title(f"KV Deviation Distribution, layer {view.selections[0].layer}")
    chosen = view.selections[0].lowest_chosen
    if chosen is not None:
        left.axvline(chosen, color="tab:red", linewidth=1, label=f"recomputed from here on ({view.ratio:g})")
        left.legend()
    for each, row in zip(view.selections, view.curve, strict=True):
        right.plot(view.ratios, row, label=f"check layer {each.layer}")
    right.axvline(view.ratio, color="tab:red", linewidth=1)
    right.set_xlabel("recompute ratio")
    right.set_ylabel("share of deviation covered")
    right.set_ylim(0, 1.02)
    right.legend()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise Trouble(f"--plot {path}: {error.strerror or error}") from None
