"""Latencies in numbers: percentiles with intervals where there are enough values, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ppd_acc.views import numbers_table
from ppd_accuracy.statistics.quantiles import quantile

CONFIDENCE = 0.95
SHARES = (("p50", 0.50), ("p90", 0.90), ("p95", 0.95), ("p99", 0.99))


def figures(values: Sequence[float], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Count, extremes, mean and percentiles, all in the values' unit. An interval is null where values are too few."""
    if not len(values):
        return {"count": 0}
    told: dict[str, Any] = {
        "count": len(values),
        "min": float(min(values)),
        "mean": float(sum(values) / len(values)),
        "max": float(max(values)),
    }
    for name, share in SHARES:
        found = quantile(values, share, confidence)
        assert found is not None
        told[name] = {"value": found.value, "interval": found.interval and found.interval._asdict()}
    return told


def figures_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per measure; what has no values is left out. Intervals stand below their percentile's value."""
    table = numbers_table(["ms"], ["n", "mean", *(name for name, _ in SHARES), "max"], title)
    for name, told in rows.items():
        if told["count"]:
            cells = [_cell(told[share]) for share, _ in SHARES]
            table.add_row(name, str(told["count"]), _number(told["mean"]), *cells, _number(told["max"]))
    return table


def _cell(told: Mapping[str, Any]) -> str:
    interval = told["interval"]
    if interval is None:
        return _number(told["value"])
    return f"{_number(told['value'])} [{_number(interval['low'])}, {_number(interval['high'])}]"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
