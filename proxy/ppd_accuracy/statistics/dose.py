"""From which dose on do answers diverge: a statistical bisection over lengths in tokens, or over requests at once.

The chance to diverge is logistic in the logarithm of the dose. The likelihood has Firth's penalty (1993), so that a
clean cut (none diverge below, all above) has a finite fit. The interval of the dose at which the chance reaches the
target is that of the profile likelihood; it is open where the data do not bound it, and it does not exist where the
chance does not depend on the dose. A fault at single doses (at a block boundary) is no threshold: a test says whether
the shares fall anywhere by more than chance. Used by `ppd-acc` alone, so scipy is imported at the top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Line = Callable[[Floats], tuple[float, float]]
"""Intercept and slope from the free parameters of a fit."""
_WIDEST = 60.0
"""How far from the estimate, in units of log dose, an end of the interval is looked for before it is called open."""


class Tried(NamedTuple):
    """`diverged` of `runs` answers at this dose."""

    dose: float
    runs: int
    diverged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """`dose` is where the fitted chance is `target`, None where it falls or does not change with the dose; `low` and
    `high` are its interval, None where that is open. `is_extrapolated`: it is beyond what was tried. `slope` is per
    e-fold dose. `dependence_p` tests whether the chance depends on the dose at all, `monotone_p` whether the shares
    fall somewhere by more than chance (small: it is no threshold)."""

    target: float
    dose: float | None
    low: float | None
    high: float | None
    is_extrapolated: bool
    intercept: float
    slope: float
    dependence_p: float
    monotone_p: float

    def chance(self, dose: float) -> float:
        """The fitted chance to diverge at a dose."""
        return float(scipy.special.expit(self.intercept + self.slope * math.log(dose)))


def fit(tried: Sequence[Tried], target: float, confidence: float, seed: int) -> Threshold | None:
    """None where fewer than two doses were tried. `seed` is for the simulation behind `monotone_p`."""
    merged = merge(tried)
    if not 0 < target < 1:
        raise ValueError(f"target is {target}, must be between 0 and 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, must be between 0 and 1")
    if len(merged) < 2:
        return None
    data = _Data.of(merged)
    free, best = data.maximum(lambda two: (two[0], two[1]), np.zeros(2))
    _, flat = data.maximum(lambda one: (one[0], 0.0), free[:1])
    intercept, slope = float(free[0]), float(free[1])
    wanted = float(scipy.special.logit(target))
    log_dose = (wanted - intercept) / slope if slope > 1e-9 else None
    low, high = (None, None) if log_dose is None else data.interval(log_dose, slope, wanted, best, confidence)
    dose = data.back(log_dose)
    return Threshold(
        target=target,
        dose=dose,
        low=data.back(low),
        high=data.back(high),
        is_extrapolated=dose is not None and not merged[0].dose <= dose <= merged[-1].dose,
        intercept=intercept - slope * data.centre / data.scale,
        slope=slope / data.scale,
        dependence_p=float(scipy.stats.chi2.sf(max(0.0, 2 * (best - flat)), 1)),
        monotone_p=monotone(merged, seed),
    )


def monotone(tried: Sequence[Tried], seed: int, draws: int = 1000) -> float:
    """How often shares that do not depend on the dose at all fall by as much as these do (likelihood ratio of free
    shares against rising ones). That is the worst rising case, so a small p means that these do not rise."""
    merged = merge(tried)
    runs = np.array([each.runs for each in merged])
    hits = np.array([each.diverged for each in merged])
    if len(runs) < 2:
        return 1.0
    observed = float(_falls(hits[None, :], runs)[0])
    if observed <= 1e-9:
        return 1.0
    drawn = np.random.default_rng(seed).binomial(runs, hits.sum() / runs.sum(), (draws, len(runs)))
    return (1 + int((_falls(drawn, runs) >= observed - 1e-9).sum())) / (1 + draws)


def merge(tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """One row for each dose, rising; those without a run are left out. ValueError for what cannot be."""
    sums: dict[float, tuple[int, int]] = {}
    for dose, runs, diverged in tried:
        if not (dose > 0 and math.isfinite(dose)):
            raise ValueError(f"dose is {dose}, must be a number over 0")
        if not 0 <= diverged <= runs:
            raise ValueError(f"diverged is {diverged} of {runs} at dose {dose}, must be from 0 to that")
        before = sums.get(dose, (0, 0))
        sums[dose] = before[0] + runs, before[1] + diverged
    return tuple(Tried(dose, *sums[dose]) for dose in sorted(sums) if sums[dose][0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What a bisection may do: whole doses from `lowest` to `highest`, `repeats` runs at a time, `most_runs` in all. It
    ends when the interval's ends are within a factor of `precision`."""

    lowest: int
    highest: int
    target: float = 0.5
    confidence: float = 0.95
    repeats: int = 5
    precision: float = 1.25
    most_runs: int = 200
    ladder: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.lowest < self.highest:
            raise ValueError(f"lowest is {self.lowest} and highest {self.highest}, must be 1 <= lowest < highest")
        if self.repeats < 1 or self.ladder < 2 or not self.precision > 1:
            raise ValueError(
                f"repeats {self.repeats}, ladder {self.ladder}, precision {self.precision};"
                " must be at least 1, at least 2, over 1"
            )


class Next(NamedTuple):
    """The dose to try next, `repeats` times; None to stop. `reason` says why."""

    dose: int | None
    reason: str


def next_dose(tried: Sequence[Tried], design: Design, seed: int) -> Next:
    """First a ladder of doses over the whole range, which also shows whether the chance rises at all; then the dose
    that divides what is left of the interval."""
    merged = merge(tried)
    runs = {each.dose: each.runs for each in merged}
    for dose in _ladder(design):
        if runs.get(dose, 0) < design.repeats:
            return Next(dose, "the ladder over the whole range")
    if not any(each.diverged for each in merged):
        return Next(None, f"nothing diverged up to {design.highest}")
    if all(each.diverged == each.runs for each in merged):
        return Next(None, f"everything diverged from {design.lowest} on")
    if sum(runs.values()) + design.repeats > design.most_runs:
        return Next(None, f"{sum(runs.values())} runs, at most {design.most_runs}")
    found = fit(merged, design.target, design.confidence, seed)
    if found is None or found.monotone_p < 1 - design.confidence:
        return Next(None, "the shares do not rise with the dose: there is no threshold")
    if found.low is not None and found.high is not None and found.high <= found.low * design.precision:
        return Next(None, f"the interval is within a factor of {design.precision:g}")
    if _is_cut(merged, design.repeats):
        return Next(None, "neighbouring doses differ completely")
    if found.dose is None:
        least = min(_ladder(design), key=lambda dose: runs.get(dose, 0))
        return Next(least, "no threshold so far: the dose with the fewest runs")
    middle = min(max(found.dose, design.lowest), design.highest)
    return Next(round(middle), "where the fitted chance is the target")


def _ladder(design: Design) -> tuple[int, ...]:
    """Both ends first: they say whether there is anything to find."""
    steps = np.geomspace(design.lowest, design.highest, design.ladder)
    inner = sorted({round(float(step)) for step in steps[1:-1]} - {design.lowest, design.highest})
    return (design.highest, design.lowest, *inner)


def _is_cut(merged: Sequence[Tried], repeats: int) -> bool:
    """Whether none diverged up to a dose and all did from the next whole one on, each tried often enough."""
    below = [each for each in merged if not each.diverged]
    above = [each for each in merged if each.diverged == each.runs]
    if not below or not above or len(below) + len(above) < len(merged):
        return False
    last, first = below[-1], above[0]
    return first.dose - last.dose == 1 and min(last.runs, first.runs) >= repeats


@dataclass(frozen=True, slots=True)
class _Data:
    """Centred and scaled logarithms of the doses (so that the fit is well conditioned), with their powers 0 to 2 as
    rows; runs, hits and misses."""

    x: Floats
    powers: Floats
    runs: Floats
    hits: Floats
    misses: Floats
    centre: float
    scale: float

    @staticmethod
    def of(merged: Sequence[Tried]) -> _Data:
        logs = np.log([each.dose for each in merged])
        runs = np.array([each.runs for each in merged], dtype=np.float64)
        centre = float(np.average(logs, weights=runs))
        scale = float(np.sqrt(np.average((logs - centre) ** 2, weights=runs)))
        hits = np.array([each.diverged for each in merged], dtype=np.float64)
        x = (logs - centre) / scale
        return _Data(x, np.stack([np.ones_like(x), x, x * x]), runs, hits, runs - hits, centre, scale)

    def back(self, x: float | None) -> float | None:
        """The dose at a scaled logarithm; None beyond what a float holds."""
        log_dose = None if x is None else self.centre + self.scale * x
        return None if log_dose is None or abs(log_dose) > 700 else math.exp(log_dose)

    def likelihood(self, intercept: float, slope: float) -> float:
        """The log-likelihood, and half the logarithm of the information's determinant: Firth's penalty."""
        line = intercept + slope * self.x
        hit, miss = scipy.special.log_expit(line), scipy.special.log_expit(-line)
        plain = float(self.hits @ hit + self.misses @ miss)
        total, first, second = (self.powers @ (self.runs * np.exp(hit + miss))).tolist()
        determinant = total * second - first * first
        return plain + 0.5 * math.log(determinant) if determinant > 1e-300 else -1e9

    def maximum(self, parameters: Line, start: Floats) -> tuple[Floats, float]:
        """Where the penalised likelihood is largest, of the lines that `parameters` makes."""
        found = scipy.optimize.minimize(
            lambda values: -self.likelihood(*parameters(values)),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000},
        )
        return np.asarray(found.x, dtype=np.float64), -float(found.fun)

    def interval(
        self, at: float, slope: float, wanted: float, best: float, confidence: float
    ) -> tuple[float | None, float | None]:
        """Ends of the profile likelihood's interval of the place where the line reaches `wanted`, None where open."""
        least = best - float(scipy.stats.chi2.ppf(confidence, 1)) / 2

        def above(place: float) -> float:
            def against(log_slope: float) -> float:
                return -self.likelihood(wanted - math.exp(log_slope) * place, math.exp(log_slope))

            around = (math.log(slope) - 12, math.log(slope) + 6)
            return -float(scipy.optimize.minimize_scalar(against, bounds=around, method="bounded").fun) - least

        ends: list[float | None] = []
        for direction in (-1.0, 1.0):
            inner, step = at, 0.05
            while step < _WIDEST and above(at + direction * step) > 0:
                inner, step = at + direction * step, step * 1.6
            if step >= _WIDEST:
                ends.append(None)
            else:
                ends.append(float(scipy.optimize.brentq(above, inner, at + direction * step, xtol=1e-4)))
        return ends[0], ends[1]


def _falls(hits: NDArray[np.int64], runs: NDArray[np.int64]) -> Floats:
    """Twice the log-likelihood ratio of free shares against the best rising ones; one row of hits per experiment."""
    shares = hits / runs
    return 2 * (_log_likelihoods(hits, runs, shares) - _log_likelihoods(hits, runs, _rising(hits, runs)))


def _rising(hits: NDArray[np.int64], runs: NDArray[np.int64]) -> Floats:
    """Isotonic regression of every row, by the max-min formula: of all stretches of doses around one."""
    sums = np.cumsum(np.pad(hits, ((0, 0), (1, 0))), axis=1)
    counts = np.cumsum(np.pad(runs, (1, 0)))
    size = len(runs)
    means = np.full((len(hits), size, size), np.inf)
    for start in range(size):
        means[:, start, start:] = (sums[:, start + 1 :] - sums[:, [start]]) / (counts[start + 1 :] - counts[start])
    least = np.minimum.accumulate(means[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.asarray(np.where(np.tri(size).T > 0, least, -np.inf).max(axis=1), dtype=np.float64)


def _log_likelihoods(hits: NDArray[np.int64], runs: NDArray[np.int64], shares: Floats) -> Floats:
    found = scipy.special.xlogy(hits, shares) + scipy.special.xlog1py(runs - hits, -shares)
    return np.asarray(found.sum(axis=1), dtype=np.float64)
