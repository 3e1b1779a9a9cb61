"""The CacheBlend view of two dumps, as data and as people read it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_accuracy.kv.blend import Blend
from ppd_accuracy.kv.blend_advice import Recommendation
from ppd_accuracy.kv.timings import Timings

_BAR = 40
_SHOWN_BINS = 10
_SHOWN_RATIOS = (0.04, 0.10, 0.16, 0.20, 0.25, 0.30, 0.40, 0.50)


def blend_data(view: Blend, advice: Recommendation, timings: Timings | None) -> dict[str, Any]:
    """For JSON; `tokens` of a selection are positions from 0."""
    counts, edges = view.histogram
    return {
        "recomp_ratio": view.ratio,
        "suffix_len": view.suffix_len,
        "total_len": view.tokens,
        "layers": list(view.layers),
        "check_layers": [asdict(selection) for selection in view.selections],
        "overlap": {"layers": list(view.layers), "jaccard": view.overlaps.tolist(), "neighbours": neighbours(view)},
        "curve": {
            "ratios": list(view.ratios),
            "coverage": {str(each.layer): list(row) for each, row in zip(view.selections, view.curve, strict=True)},
        },
        "histogram": {"counts": list(counts), "edges": list(edges)},
        "best_check_layer": {"layer": view.best_layer[0], "coverage": view.best_layer[1]},
        "recommended_ratio": advice.ratio,
        "reasons": list(advice.reasons),
        "time_to_first_token": None if timings is None else {**asdict(timings), "total_s": timings.total_s},
    }


def neighbours(view: Blend) -> float | None:
    """Mean overlap of each layer's high-deviation tokens with the next layer's; None with one layer."""
    pairs = np.diagonal(view.overlaps, offset=1)
    return float(pairs.mean()) if len(pairs) else None


def blend_view(view: Blend, advice: Recommendation, timings: Timings | None) -> tuple[RenderableType, ...]:
    parts: list[RenderableType] = [Text(""), Text(f"CacheBlend view, recompute ratio {view.ratio:g}")]
    for each in view.selections:
        elsewhere = "" if each.coverage_elsewhere is None else f", {each.coverage_elsewhere:.1%} of the other layers'"
        spread = "" if each.lowest_chosen is None else f" ({each.lowest_chosen:.4g} to {each.highest_chosen:.4g})"
        parts.append(
            Text(
                f"check layer {each.layer}: {each.high_deviation_tokens} HKVD tokens{spread} and {view.suffix_len} of"
                f" the suffix are {len(each.tokens)} of {view.tokens} ({each.share:.2%}); they cover"
                f" {each.coverage:.1%} of its deviation{elsewhere}"
            )
        )
    overlap = neighbours(view)
    if overlap is not None:
        parts.append(Text(f"HKVD tokens of neighbouring layers overlap by {overlap:.2f} (mean Jaccard index)"))
    parts += [_curve(view), *_histogram(view)]
    if timings is not None:
        parts.append(_timings(timings))
    parts.append(Text(f"recommended ratio: {advice.ratio:g}"))
    parts += [Text(f"  - {reason}") for reason in advice.reasons]
    return tuple(parts)


def _curve(view: Blend) -> Table:
    table = Table(title="share of deviation covered", title_justify="left", show_edge=False)
    table.add_column("ratio", justify="right")
    for each in view.selections:
        table.add_column(f"layer {each.layer}", justify="right")
    for ratio in sorted({*_SHOWN_RATIOS, view.ratio}):
        if ratio in view.ratios:
            place = view.ratios.index(ratio)
            table.add_row(f"{ratio:g}", *(f"{row[place]:.1%}" for row in view.curve))
    return table


def _histogram(view: Blend) -> list[RenderableType]:
    """The first check layer's deviations in fewer bins than the data has, as bars of text."""
    counts, edges = view.histogram
    step = max(1, len(counts) // _SHOWN_BINS)
    starts = range(0, len(counts), step)
    sums = [sum(counts[start : start + step]) for start in starts]
    highest = max(sums) or 1
    lines: list[RenderableType] = [Text(f"KV deviation per token, layer {view.selections[0].layer}")]
    for start, total in zip(starts, sums, strict=True):
        end = edges[min(start + step, len(counts))]
        bar = "#" * round(_BAR * total / highest)
        lines.append(Text(f"  {edges[start]:>10.4g} to {end:<10.4g} {total:>8} {bar}"))
    return lines


def _timings(timings: Timings) -> Table:
    table = Table(title="time to first token", title_justify="left", show_edge=False)
    table.add_column("part")
    table.add_column("s", justify="right")
    table.add_column("share", justify="right")
    total = timings.total_s
    for name, seconds in (*timings.parts, ("all", total)):
        table.add_row(name, f"{seconds:.3f}", f"{seconds / total:.1%}" if total else "-")
    if timings.full_prefill_s is not None:
        table.add_row("full prefill instead", f"{timings.full_prefill_s:.3f}", "")
    return table
