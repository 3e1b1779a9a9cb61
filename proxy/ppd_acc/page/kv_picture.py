"""The relative error of a KV dump, layer by token position: what `check-kv --json` wrote, as a heat map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from ppd_acc.page.drawing import LEFT, Picture, label, path, place
from ppd_acc.page.markup import element, table
from ppd_acc.page.scales import number

_LEVELS = 8
_MOST_FINDINGS = 5
_WIDTH, _RIGHT, _TOP, _GAP = 1140.0, 20.0, 40.0, 46.0
_MOST_ROW, _LEAST_ROW, _MOST_HEIGHT = 20.0, 3.0, 420.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One array. `values` are of the bins of tokens that begin at `starts`; None is no finite number."""

    label: str
    starts: tuple[int, ...]
    values: tuple[float | None, ...]
    tokens: int

    def bins(self) -> list[tuple[int, int, float | None]]:
        """First token, the one behind the last, and the error."""
        return [*zip(self.starts, (*self.starts[1:], self.tokens), self.values, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The layers of one kind of tensor, in order."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """`is_match` and `findings` are what check-kv said."""

    panels: tuple[Panel, ...]
    is_match: bool | None = None
    findings: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        return max((row.tokens for panel in self.panels for row in panel.rows), default=0)


def heat_picture(heat: Heat) -> Picture:
    name, title = "kv", "KV error by layer and position"
    panels = [panel for panel in heat.panels if any(row.values for row in panel.rows)]
    if not panels:
        return Picture(name=name, title=title, finding="The check of the KV dumps compared no array.")
    values = [value for panel in panels for row in panel.rows for value in row.values]
    edges = levels([value for value in values if value is not None])
    width = (_WIDTH - _RIGHT - LEFT * len(panels) - _GAP * (len(panels) - 1)) / len(panels)
    most = max(len(panel.rows) for panel in panels)
    height = min(_MOST_ROW, max(_LEAST_ROW, _MOST_HEIGHT / most))
    parts: list[Markup] = []
    for at, panel in enumerate(panels):
        parts += _panel(panel, heat.tokens, edges, LEFT + at * (LEFT + _GAP + width), width, height)
    bottom = _TOP + most * height
    parts += _scale(edges, bottom + 62, None in values)
    more = f"; and {len(heat.findings) - _MOST_FINDINGS} more" if len(heat.findings) > _MOST_FINDINGS else ""
    return Picture(
        name=name,
        title=title,
        finding=_finding(panels, heat),
        description=f"Heat map of the relative error, {most} layers by {heat.tokens} token positions.",
        parts=parts,
        note="; ".join(heat.findings[:_MOST_FINDINGS]) + more,
        numbers=table(
            ("Layer", "Tensor", "Median", "Largest", "At token", "No numbers"),
            [_numbers(panel, row) for panel in panels for row in panel.rows],
            caption="Relative L2 error by layer; each cell of the picture is the largest of its tokens",
        ),
        width=_WIDTH,
        height=bottom + 100,
        is_wide=True,
    )


def levels(numbers: Sequence[float]) -> list[float]:
    """Rising upper edges of the colours but the last, evenly on a logarithmic scale; an error of 0 is in the first."""
    positive = sorted(value for value in numbers if value > 0)
    if not positive:
        return [10.0**power for power in range(-_LEVELS, -1)]
    low, high = math.log10(positive[0]), math.log10(positive[-1])
    low = max(low, high - 8)
    if high - low < 0.5:
        low, high = low - 0.5, high + 0.5
    return [10.0 ** (low + (high - low) * step / _LEVELS) for step in range(1, _LEVELS)]


def level(value: float, edges: Sequence[float]) -> int:
    return sum(value > edge for edge in edges)


def _panel(panel: Panel, tokens: int, edges: Sequence[float], left: float, width: float, height: float) -> list[Markup]:
    parts = [label(left, _TOP - 12, panel.name, "name")]
    runs: dict[str, list[str]] = {}
    for line, row in enumerate(panel.rows):
        top = _TOP + line * height
        for class_, same in itertools.groupby(row.bins(), lambda each: _class(each[2], edges)):
            cells = list(same)
            x, end = left + cells[0][0] / tokens * width, left + cells[-1][1] / tokens * width
            step = f"M{place(x)} {place(top)}H{place(end)}v{place(height)}H{place(x)}z"
            runs.setdefault(class_, []).append(step)
    parts += [element("path", d="".join(steps), class_=f"heat {class_}") for class_, steps in sorted(runs.items())]
    every = max(1, math.ceil(14 / height))
    for line in range(0, len(panel.rows), every):
        parts.append(label(left - 7, _TOP + (line + 0.5) * height + 4, panel.rows[line].label[:8], "tick end"))
    bottom = _TOP + len(panel.rows) * height
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(path([(left + share * width, bottom), (left + share * width, bottom + 5)], "axis"))
        parts.append(label(left + share * width, bottom + 18, f"{round(share * tokens):,}", "tick middle"))
    parts.append(label(left + width / 2, bottom + 36, "token position", "title middle"))
    return parts


def _class(value: float | None, edges: Sequence[float]) -> str:
    return "none" if value is None else f"level{level(value, edges)}"


def _scale(edges: Sequence[float], top: float, has_none: bool) -> list[Markup]:
    """The colours' legend, below the panels."""
    width = 72.0
    parts = [label(LEFT, top + 12, "relative error", "tick")]
    start = LEFT + 92
    parts += [
        element("rect", x=place(start + at * width), y=place(top), width=width, height=14, class_=f"heat level{at}")
        for at in range(_LEVELS)
    ]
    for at, edge in enumerate(edges, 1):
        parts.append(label(start + at * width, top + 30, number(edge), "tick middle"))
    if has_none:
        aside = start + _LEVELS * width + 24
        parts.append(element("rect", x=place(aside), y=place(top), width=24, height=14, class_="heat none"))
        parts.append(label(aside + 32, top + 12, "NaN or infinite", "tick"))
    return parts


def _finding(panels: Sequence[Panel], heat: Heat) -> str:
    known = [(value, panel, row) for panel in panels for row in panel.rows for value in row.values if value is not None]
    every = [value for panel in panels for row in panel.rows for value in row.values]
    broken = every.count(None)
    told = []
    if heat.is_match is not None:
        told.append("check-kv finds the dumps the same up to rounding." if heat.is_match else
                    "check-kv finds that the dumps differ.")  # fmt: skip
    if broken:
        told.append(f"{broken:,} of {len(every):,} cells hold numbers that are not finite.")
    if known:
        worst, panel, row = max(known, key=lambda each: each[0])
        where = f" ({panel.name}, layer {row.label})" if worst > 0 else ""
        told.append(f"The largest relative error is {number(worst)}{where}.")
    return " ".join(told)


def _numbers(panel: Panel, row: Row) -> tuple[object, ...]:
    known = [(value, first, end) for first, end, value in row.bins() if value is not None]
    none = len(row.values) - len(known)
    if not known:
        return row.label, panel.name, "\u2014", "\u2014", "\u2014", none
    worst, first, end = max(known, key=lambda each: each[0])
    where = f"{first:,}" if end - first <= 1 else f"{first:,}\u2013{end - 1:,}"
    return row.label, panel.name, number(median(value for value, _, _ in known)), number(worst), where, none
