"""What `check-kv` tells: the report as data, and as people read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ppd_acc.kv.check import Checked, KvReport, Side
from ppd_acc.views import counted
from ppd_accuracy.kv.figures import Axis, Figures
from ppd_accuracy.kv.findings import CacheFinding
from ppd_accuracy.kv.tolerance import LOST

_FIGURES = ("mse", "relative_l2", "max_abs", "mean_abs", "cosine", "max_ulp", "mean_ulp")
_COUNTS = ("nan_baseline", "nan_target", "infinite_baseline", "infinite_target", "infinite_matches")
_DETAILS = ("changed", *_FIGURES, "nan_baseline", "nan_target")
_SHOWN_ARRAYS, _SHOWN_FINDINGS, _SHOWN_DETAILED, _SHOWN_PLACES = 40, 20, 4, 10
_SHOWN_SHAPES = 3
_TREND_LAYERS, _TREND = 6, 0.8
_WORDS = MappingProxyType(
    {
        "rounding": "within rounding", "tolerance": "within tolerance", "not_finite": "not finite",
        "shape": "of other shape", "type": "of other type", "missing": "on one side only",
    }
)  # fmt: skip


def data_of(report: KvReport) -> dict[str, Any]:
    """For JSON. What is not finite becomes null there; the counts say where."""
    return {
        "match": report.is_match,
        "baseline": _side(report.baseline),
        "target": _side(report.target),
        "block_size": report.block_size,
        "read_as": [
            {"heads": heads, "tokens": tokens, "channels": channels, "arrays": arrays}
            for (heads, tokens, channels), arrays in _shapes(report).items()
        ],
        "arrays": len(report.checked),
        "different": [each.name for each in report.different],
        "prompts": report.prompts or None,
        "findings": [*_grouped(report), *({"arrays": [], **asdict(finding)} for finding in report.layers)],
        "trends": trends(report),
        "layers": [_array(each) for each in report.checked],
        "heat_map": heat_map(report),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "path": side.path, "format": side.format, "arrays": side.arrays, "tokens": side.tokens,
        "metadata": dict(side.about),
    }  # fmt: skip


def _array(each: Checked) -> dict[str, Any]:
    about = each.pair.about
    shown: dict[str, Any] = {
        "name": each.name,
        "baseline_name": each.pair.baseline,
        "target_name": each.pair.target,
        "layer": about.layer,
        "kind": about.kind or None,
        "point": about.point or None,
        "status": each.status,
        "is_pass": each.is_pass,
        "reason": each.reason,
        "baseline_shape": each.shapes[0],
        "target_shape": each.shapes[1],
        "baseline_dtype": each.types[0],
        "target_dtype": each.types[1],
    }
    if each.comparison is None:
        return shown
    found = each.comparison
    rounding = found.verdict.rounding
    return {
        **shown,
        "tolerance_dtype": found.verdict.element.name,
        "consistent_with": rounding.name if rounding is not None else None,
        "elements": int(np.prod(found.shape)),
        "pairs": int(found.figures.pairs),
        "changed": int(found.figures.changed),
        **{name: float(getattr(found.figures, name)) for name in _FIGURES},
        **{name: int(getattr(found.figures, name)) for name in _COUNTS},
        "worst": dict(found.worst),
        "findings": [asdict(finding) for finding in found.findings],
        "per": {axis: _details(figures) for axis, figures in found.details.items()},
    }


def _details(figures: Figures) -> dict[str, Any]:
    return {name: getattr(figures, name).tolist() for name in _DETAILS}


def heat_map(report: KvReport) -> list[dict[str, Any]]:
    """One row for each compared array: the first token of each bin, the largest relative L2 in it (null where something
    is not finite), and the number of tokens."""
    return [
        {
            "name": each.name, "layer": each.pair.about.layer, "kind": each.pair.about.kind or None,
            "tokens": each.comparison.shape[1], "starts": list(each.comparison.heat[0]),
            "relative_l2": list(each.comparison.heat[1]),
        }
        for each in report.checked
        if each.comparison is not None
    ]  # fmt: skip


def trends(report: KvReport) -> list[dict[str, Any]]:
    """Kinds whose error rises from layer to layer: Spearman's rank correlation of layer and relative L2."""
    found = []
    for kind in ("key", "value", "latent"):
        rows = [
            (each.pair.about.layer, float(each.comparison.figures.relative_l2))
            for each in report.checked
            if each.pair.about.kind == kind and each.comparison is not None and each.pair.about.layer is not None
        ]
        errors = np.array([error for _, error in rows])
        if len(rows) < _TREND_LAYERS or not np.isfinite(errors).all() or not errors.std() > 0:
            continue
        from scipy.stats import spearmanr  # here, because it is slow to import and rarely needed

        correlation = float(spearmanr([layer for layer, _ in rows], errors).statistic)
        if correlation >= _TREND:
            found.append({"kind": kind, "spearman": correlation, "first": rows[0][1], "last": rows[-1][1]})
    return found


def view_of(report: KvReport) -> tuple[RenderableType, ...]:
    """The table of what is not identical, what went wrong, and the verdict last."""
    parts: list[RenderableType] = [_table(report)] if any(each.status != "identical" for each in report.checked) else []
    parts += _detail_tables(report)
    lines = [report.prompts] if report.prompts else []
    lines += [finding.text for finding in report.layers]
    lines += [f"{group['text']} [{_told_arrays(group['arrays'], report)}]" for group in _grouped(report)]
    lines += [
        f"{trend['kind']}: the error rises with the layers (Spearman {trend['spearman']:.2f}), relative L2 from"
        f" {trend['first']:.3g} to {trend['last']:.3g}: precision loss that accumulates"
        for trend in trends(report)
    ]
    if len(lines) > _SHOWN_FINDINGS:
        lines = [*lines[:_SHOWN_FINDINGS], f"and {len(lines) - _SHOWN_FINDINGS} more; --json has all"]
    lines += _read_as(report)
    return (*parts, *(Text(line) for line in lines), Text(headline(report)))


def _shapes(report: KvReport) -> Counter[tuple[int, int, int]]:
    """(heads, tokens, channels) as compared, and of how many arrays, the most frequent first."""
    counts = Counter(each.comparison.shape for each in report.checked if each.comparison is not None)
    return Counter(dict(counts.most_common()))


def _read_as(report: KvReport) -> list[str]:
    shapes = _shapes(report)
    told = [
        f"{counted(heads, 'head')}, {counted(tokens, 'token')}, {counted(channels, 'channel')}"
        + (f" ({counted(arrays, 'array')})" if len(shapes) > 1 else "")
        for (heads, tokens, channels), arrays in shapes.items()
    ]
    if len(told) > _SHOWN_SHAPES:
        told = [*told[:_SHOWN_SHAPES], f"{len(told) - _SHOWN_SHAPES} other shapes"]
    return [f"read as {'; '.join(told)}"] if told else []


def headline(report: KvReport) -> str:
    counts: dict[str, int] = {}
    for each in report.checked:
        counts[each.status] = counts.get(each.status, 0) + 1
    told = ", ".join(f"{count} {_WORDS.get(status, status)}" for status, count in counts.items())
    roundings = sorted({each.reason.split(":")[0] for each in report.checked if each.status == "rounding"})
    roundings += sorted({each.reason[each.reason.index(LOST) :] for each in report.checked if LOST in each.reason})
    consistent = f"; {', '.join(roundings)}" if roundings else ""
    return f"{'MATCH' if report.is_match else 'DIFFERENT'}: {len(report.checked)} arrays, {told}{consistent}"


def _table(report: KvReport) -> Table:
    table = Table(show_edge=False)
    table.add_column("array")
    table.add_column("verdict")
    for name in ("rel. L2", "MSE", "max abs", "cosine", "max ULP", "NaN/Inf", "worst head/block/token"):
        table.add_column(name, justify="right")
    rows = [each for each in report.checked if each.status != "identical"]
    rows.sort(key=lambda each: each.is_pass)
    for each in rows[:_SHOWN_ARRAYS]:
        table.add_row(each.name, each.status if each.comparison else f"{each.status}: {each.reason}", *_cells(each))
    hidden = len(rows) - _SHOWN_ARRAYS
    if hidden > 0:
        table.add_row(f"and {hidden} more", "--json has all")
    return table


def _cells(each: Checked) -> list[str]:
    if each.comparison is None:
        return []
    figures, worst = each.comparison.figures, each.comparison.worst
    broken = sum(int(getattr(figures, name)) for name in _COUNTS[:4])
    return [
        f"{float(figures.relative_l2):.3g}", f"{float(figures.mse):.3g}", f"{float(figures.max_abs):.3g}",
        f"{float(figures.cosine):.6f}", f"{float(figures.max_ulp):.0f}", str(broken),
        "/".join(str(worst[axis]) for axis in ("head", "block", "token")),
    ]  # fmt: skip


def _detail_tables(report: KvReport) -> list[RenderableType]:
    """The worst places along each axis asked for, of the worst arrays."""
    compared = [each for each in report.checked if each.comparison is not None and each.status != "identical"]
    compared.sort(key=lambda each: -_sortable(each))
    parts: list[RenderableType] = []
    for each in compared[:_SHOWN_DETAILED]:
        assert each.comparison is not None
        for axis, figures in each.comparison.details.items():
            parts.append(_detail_table(each.name, axis, figures))
    return parts


def _sortable(each: Checked) -> float:
    assert each.comparison is not None
    return float(np.nan_to_num(float(each.comparison.figures.relative_l2), nan=np.inf))


def _detail_table(name: str, axis: Axis, figures: Figures) -> Table:
    count = len(figures.relative_l2)
    table = Table(title=f"{name}: the worst of {count} {axis}s", title_justify="left", show_edge=False)
    for column in (axis, "rel. L2", "MSE", "max abs", "cosine", "max ULP", "mean ULP", "NaN"):
        table.add_column(column, justify="right")
    errors = np.nan_to_num(figures.relative_l2, nan=np.inf)
    for place in np.argsort(-errors, kind="stable")[:_SHOWN_PLACES].tolist():
        table.add_row(
            str(place), f"{figures.relative_l2[place]:.3g}", f"{figures.mse[place]:.3g}",
            f"{figures.max_abs[place]:.3g}", f"{figures.cosine[place]:.6f}", f"{figures.max_ulp[place]:.0f}",
            f"{figures.mean_ulp[place]:.3g}", str(figures.nan_baseline[place] + figures.nan_target[place]),
        )  # fmt: skip
    return table


def _grouped(report: KvReport) -> list[dict[str, Any]]:
    """Findings of single arrays, equal ones together. What a moved layer explains is left out."""
    moved = {layer for finding in report.layers for layer in finding.layers}
    groups: dict[str, list[tuple[str, CacheFinding]]] = {}
    for each in report.checked:
        for finding in each.comparison.findings if each.comparison is not None else ():
            if finding.kind in ("stale", "scattered") and each.pair.about.layer in moved:
                continue
            key = finding.kind if finding.kind == "scattered" else finding.text
            groups.setdefault(key, []).append((each.name, finding))
    return [_group(members) for members in groups.values()]


def _group(members: Sequence[tuple[str, CacheFinding]]) -> dict[str, Any]:
    finding = max((finding for _, finding in members), key=lambda each: each.error or 0.0)
    names = [name for name, _ in members]
    shown = {"arrays": names, **asdict(finding)}
    if finding.kind == "scattered" and len(names) > 1:
        shown["text"] = (
            f"differences, relative L2 of a row up to {finding.error:.3g}; the worst array has {finding.text}"
        )
    return shown


def _told_arrays(names: Sequence[str], report: KvReport) -> str:
    if len(names) == len(report.checked) > 1:
        return f"all {len(names)} arrays"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
