"""How far answers stay equal: the first divergence by token position.

An answer that stayed equal to its end says only that it had not diverged by then: it is censored at its length. So the
chance of diverging at a position is taken of the answers that got there (Kaplan and Meier 1958), and a histogram of
positions alone would mistake short answers for early divergences. Positions count from 0. Used by `ppd-acc` alone, so
scipy is imported at the top.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from ppd_accuracy.statistics.intervals import Interval, wilson


class Watched(NamedTuple):
    """One compared answer: `position` is that of its first difference, or, where it has none, the number of tokens that
    were compared."""

    position: int
    is_divergent: bool


class SurvivalStep(NamedTuple):
    """`survival` is the share of answers still equal after the token at `position`; `interval` is its confidence band
    at that position, None where no band exists (everything has diverged)."""

    position: int
    at_risk: int
    diverged: int
    survival: float
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Steps in the order of their positions, one per position at which an answer diverged; before the first the
    survival is 1. `median` is the first position after whose token at most half are still equal, None where it does
    not get there; its interval is where the band does."""

    count: int
    diverged: int
    steps: tuple[SurvivalStep, ...]
    median: int | None
    median_interval: tuple[int | None, int | None]


class Hazard(NamedTuple):
    """Positions from `start` to before `stop`. `exposure_tokens` is the number of tokens compared there (each equal one
    and the first different one of an answer); `hazard` is the chance per token to diverge, None without exposure."""

    start: int
    stop: int
    exposure_tokens: int
    diverged: int
    hazard: float | None
    interval: Interval


def kaplan_meier(answers: Sequence[Watched], confidence: float) -> Curve:
    """The survival curve with its pointwise band: Greenwood's variance on the log-log scale, which stays in [0, 1]."""
    times, events = _arrays(answers)
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    survival, variance = 1.0, 0.0
    steps = []
    for time in np.unique(times[events]).tolist():
        at_risk = int((times >= time).sum())
        diverged = int((events & (times == time)).sum())
        survival *= 1 - diverged / at_risk
        variance += diverged / (at_risk * (at_risk - diverged)) if diverged < at_risk else math.inf
        steps.append(SurvivalStep(time - 1, at_risk, diverged, survival, _band(survival, variance, z)))
    crossed = [step.position for step in steps if step.survival <= 0.5 + 1e-12]
    early = [step.position for step in steps if (step.interval.low if step.interval else 0.0) <= 0.5]
    late = [step.position for step in steps if (step.interval.high if step.interval else 0.0) <= 0.5]
    return Curve(
        count=len(times),
        diverged=int(events.sum()),
        steps=tuple(steps),
        median=min(crossed, default=None),
        median_interval=(min(early, default=None), min(late, default=None)),
    )


def survival_at(curve: Curve, position: int) -> float:
    """The share still equal after the token at `position`."""
    survival = 1.0
    for step in curve.steps:
        if step.position > position:
            break
        survival = step.survival
    return survival


def hazards(answers: Sequence[Watched], edges: Sequence[int], confidence: float) -> tuple[Hazard, ...]:
    """The chance per token between each two neighbouring `edges` (rising positions), with Wilson's interval."""
    if list(edges) != sorted(set(edges)) or len(edges) < 2 or edges[0] < 0:
        raise ValueError(f"edges are {list(edges)}, must be at least two positions, rising, from 0")
    times, events = _arrays(answers)
    found = []
    for start, stop in itertools.pairwise(edges):
        exposure = int((np.minimum(times, stop) - np.minimum(times, start)).sum())
        diverged = int((events & (times > start) & (times <= stop)).sum())
        hazard = diverged / exposure if exposure else None
        found.append(Hazard(start, stop, exposure, diverged, hazard, wilson(diverged, exposure, confidence)))
    return tuple(found)


def even_edges(answers: Sequence[Watched], bins: int) -> tuple[int, ...]:
    """Edges of at most `bins` bins with about as many compared tokens in each, up to the longest answer."""
    times, _ = _arrays(answers)
    longest = int(times.max(initial=0))
    if not longest:
        return (0, 1)
    compared = np.cumsum([int((times > position).sum()) for position in range(longest)])
    wanted = compared[-1] * np.arange(1, bins) / bins
    inner = (np.searchsorted(compared, wanted) + 1).tolist()
    return tuple(sorted({0, longest, *(edge for edge in inner if edge < longest)}))


def _band(survival: float, variance: float, z: float) -> Interval | None:
    if not 0 < survival < 1:
        return None
    logarithm = math.log(survival)
    half = z * math.sqrt(variance) / abs(logarithm)
    return Interval(survival ** math.exp(half), survival ** math.exp(-half))


def _arrays(answers: Sequence[Watched]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times in tokens: the n-th token is compared at time n, so a difference at position p happens at p + 1."""
    if any(answer.position < 0 for answer in answers):
        raise ValueError(f"position is {min(answer.position for answer in answers)}, must be at least 0")
    events = np.array([answer.is_divergent for answer in answers], dtype=np.bool_)
    return np.array([answer.position for answer in answers], dtype=np.int64) + events, events
