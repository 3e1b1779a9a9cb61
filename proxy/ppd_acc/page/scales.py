"""From values to places on a picture, and the values that stand at an axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_LEAST_GAP = 26.0
Kind = Literal["linear", "log", "knee"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """`low` and `high` are the values at `start` and `end` (picture units; `end` may be the smaller one).

    Values outside are drawn at the edge. `log` needs low > 0; `knee` (inverse hyperbolic sine) is about linear up to
    `knee` and logarithmic from there, and so has room for 0.
    """

    low: float
    high: float
    start: float
    end: float
    kind: Kind = "linear"
    knee: float = 1.0

    def __call__(self, value: float) -> float:
        low, high = self._turned(self.low), self._turned(self.high)
        share = (self._turned(min(max(value, self.low), self.high)) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def _turned(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(value)
        return math.asinh(value / self.knee) if self.kind == "knee" else value

    def ticks(self, wanted: int = 5) -> list[float]:
        if self.kind == "log":
            return _decades(self.low, self.high, wanted)
        if self.kind == "knee":
            return self._spaced([0.0, *_decades(self.knee / 10, self.high, 99)])
        return _round_ticks(self.low, self.high, wanted)

    def _spaced(self, ticks: Sequence[float]) -> list[float]:
        """Without those whose labels would touch the one before."""
        found: list[float] = []
        for value in ticks:
            if not found or abs(self(value) - self(found[-1])) >= _LEAST_GAP:
                found.append(value)
        return found


def _round_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _decades(low: float, high: float, wanted: int) -> list[float]:
    """Powers of ten, thinned where there are too many, with 2 and 5 between them where there are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    factors: Sequence[int] = (1,) if last - first >= 2 else (1, 2, 5)
    skip = max(1, math.ceil((last - first + 1) / (wanted + 1)))
    found = [factor * 10.0**power for power in range(first - 1, last + 1, skip) for factor in factors]
    return [each for each in found if low * 0.999 <= each <= high * 1.001]


def rounded_up(value: float) -> float:
    """The next round number; 1 for what is not above 0."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        power * factor for factor in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * factor >= value * 0.9999
    )


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places, moved as little as needed so that neighbours are `gap` apart and all are within low..high."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [places[index] for index in order]
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + gap)
    if moved and moved[-1] > high:
        moved[-1] = high
        for at in range(len(moved) - 2, -1, -1):
            moved[at] = min(moved[at], moved[at + 1] - gap)
    if moved and moved[0] < low:
        moved = [max(place, low + number * gap) for number, place in enumerate(moved)]
    found = [0.0] * len(places)
    for index, place in zip(order, moved, strict=True):
        found[index] = place
    return found


def number(value: float) -> str:
    """Short, for an axis: 0.05, 12, 1,500, 2e-06."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "no number"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e\u2212{abs(int(exponent))}".replace("-", "\u2212")
    if abs(value) >= 100:
        return f"{value:.0f}".replace("-", "\u2212")
    return f"{value:.3g}".replace("-", "\u2212")
