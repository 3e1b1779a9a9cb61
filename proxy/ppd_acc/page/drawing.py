"""Parts that the page's pictures are drawn from: axes, marks, paths, and the figure around them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from ppd_acc.page.markup import element, rendered
from ppd_acc.page.scales import Kind, Scale, number

WIDTH, HEIGHT = 560.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 18.0, 34.0, 44.0
Shape = Literal["dot", "diamond", "square", "cross"]
_SHAPES = (("tie", "dot"), ("real", "diamond"), ("unclassified", "square"), ("error", "cross"), ("equal", "dot"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of a legend: how it is drawn and what it is called."""

    class_: str
    label: str
    kind: Literal["line", "dashes", "dot", "diamond", "square", "cross", "area", "hollow"] = "line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """`title` and `description` are also for those who cannot see it; `finding` says what it shows, `note` how it was
    made; `numbers` is the same as a table. Without `parts` and `content` there is nothing to draw, and `finding` says
    why."""

    name: str
    title: str
    finding: str
    description: str = ""
    parts: Sequence[Markup] = ()
    content: Markup | None = None
    keys: Sequence[Key] = ()
    note: str = ""
    numbers: Markup | None = None
    width: float = WIDTH
    height: float = HEIGHT
    is_wide: bool = False

    @property
    def is_nothing(self) -> bool:
        return not self.parts and self.content is None


def figure(picture: Picture) -> Markup:
    return rendered("figure.html", picture=picture, swatches=[_swatch(key) for key in picture.keys])


def _swatch(key: Key) -> Markup:
    if key.kind in ("line", "dashes"):
        return element("path", d="M1 7h20", class_=f"line {key.class_}{' dashes' if key.kind == 'dashes' else ''}")
    if key.kind == "area":
        return element("rect", x=1, y=2, width=20, height=10, class_=f"area {key.class_}")
    return mark("dot", 11, 7, f"{key.class_} hollow") if key.kind == "hollow" else mark(key.kind, 11, 7, key.class_)


def plot_area(
    *, low_x: float, high_x: float, low_y: float, high_y: float, kind_x: Kind = "linear",
    kind_y: Kind = "linear", knee: float = 1.0,
    right: float = RIGHT, bottom: float = BOTTOM,
) -> tuple[Scale, Scale]:  # fmt: skip
    return (
        Scale(low=low_x, high=high_x, start=LEFT, end=WIDTH - right, kind=kind_x, knee=knee),
        Scale(low=low_y, high=high_y, start=HEIGHT - bottom, end=TOP, kind=kind_y, knee=knee),
    )


def axes(
    x: Scale,
    y: Scale,
    title_x: str,
    title_y: str,
    *,
    show_x: Callable[[float], str] = number,
    show_y: Callable[[float], str] = number,
    ticks_x: Iterable[float] | None = None,
) -> Markup:
    """Grid lines, tick labels and titles; the y axis' title stands above it, where it reads without turning a head."""
    parts = []
    for value in y.ticks():
        height = y(value)
        parts.append(path([(x.start, height), (x.end, height)], "grid"))
        parts.append(label(x.start - 8, height + 4, show_y(value), "tick end"))
    for value in x.ticks() if ticks_x is None else ticks_x:
        left = x(value)
        parts.append(path([(left, y.start), (left, y.start + 5)], "axis"))
        parts.append(label(left, y.start + 18, show_x(value), "tick middle"))
    parts.append(path([(x.start, y.start), (x.end, y.start)], "axis"))
    parts.append(label((x.start + x.end) / 2, y.start + 37, title_x, "title middle"))
    parts.append(label(4, 16, title_y, "title"))
    return element("g", *parts)


def path(points: Sequence[tuple[float, float]], class_: str, *, is_closed: bool = False) -> Markup:
    steps = "L".join(f"{place(left)} {place(top)}" for left, top in points)
    return element("path", d=f"M{steps}{'Z' if is_closed else ''}", class_=class_)


def stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a curve that keeps its height up to the next point."""
    found = [*points[:1]]
    for before, after in itertools.pairwise(points):
        found += [(after[0], before[1]), after]
    return found


def label(left: float, top: float, text: object, class_: str = "") -> Markup:
    return element("text", text, x=place(left), y=place(top), class_=class_)


def dots(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Many small points as one path: a page with thousands of circles is slow."""
    return element("path", d="".join(f"M{place(left)} {place(top)}h0" for left, top in points), class_=f"dots {class_}")


def shape_of(status: str) -> Shape:
    found: Shape = next((shape for name, shape in _SHAPES if name == status), "dot")  # type: ignore[misc]
    return found


def mark(shape: str, left: float, top: float, class_: str, told: str | None = None) -> Markup:
    """A point that stands alone; `told` is shown where the pointer rests on it."""
    title = element("title", told) if told is not None else None
    if shape == "dot":
        return element("circle", title, cx=place(left), cy=place(top), r=4, class_=f"mark {class_}")
    a, b, size = place(left), place(top), 5
    if shape == "diamond":
        drawn = f"M{a} {place(top - size)}l{size} {size}l-{size} {size}l-{size} -{size}Z"
    elif shape == "square":
        drawn = f"M{place(left - 3.5)} {place(top - 3.5)}h7v7h-7Z"
    else:
        drawn = f"M{a} {b}m-4 -4l8 8m0 -8l-8 8"
    return element("path", title, d=drawn, class_=f"mark {class_}")


def whisker(left: float, low: float, high: float, class_: str, *, is_flat: bool = False) -> Markup:
    """An interval with end caps: upright at `left`, or lying at height `left`."""
    ends = (
        f"M{place(low)} {place(left - 4)}v8m0 -4H{place(high)}m0 -4v8"
        if is_flat
        else f"M{place(left - 4)} {place(low)}h8m-4 0V{place(high)}m-4 0h8"
    )
    return element("path", d=ends, class_=f"whisker {class_}")


def place(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
