"""Groups of divergent samples that look alike: k-means over their features, the number of groups by silhouette.

A feature is a number per sample or unknown. Unknown is not 0: it is filled with the known median for the distance, and
where a part of the samples lacks a feature, having it is a feature of its own. Features are scaled by their standard
deviation. Deterministic for a seed, whatever the order of the samples. Used by `ppd-acc` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Features = Mapping[str, float | None]
"""Of one sample: name to value; None, NaN, an infinity or a missing name is unknown."""

MOST_GROUPS = 8
WEAKEST = 0.25
"""A mean silhouette below this is no structure (Kaufman and Rousseeuw 1990): all samples are one group then."""
SAMPLE = 500
"""Samples that the silhouette is taken against: memory is the number of samples times this."""
_REFERENCES = 9
_STARTS = 8
_ROUNDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Within a group: median and range of the known values (None without any), and how many are known."""

    name: str
    known: int
    median: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """`members` are indices into the samples, ascending; `centre` the one nearest to the middle."""

    members: tuple[int, ...]
    centre: int
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Groups, the largest first. `silhouette` is the mean of the chosen number of groups, None with one group; `tried`
    has it for each number of groups that was tried."""

    groups: tuple[Group, ...]
    silhouette: float | None
    tried: tuple[tuple[int, float], ...]


def group(samples: Sequence[Features], seed: int, count: int | None = None) -> Grouping:
    """The samples in `count` groups, or in as many (up to MOST_GROUPS) as the silhouette likes best."""
    if count is not None and count < 1:
        raise ValueError(f"count is {count}, must be at least 1")
    if not samples:
        return Grouping(groups=(), silhouette=None, tried=())
    names = sorted({name for sample in samples for name in sample})
    numbers = [[_number(sample.get(name)) for name in names] for sample in samples]
    order = sorted(range(len(samples)), key=lambda place: np.nan_to_num(numbers[place], nan=math.inf).tolist())
    known = np.array([numbers[place] for place in order], dtype=np.float64).reshape(len(samples), len(names))
    points = _points(known)
    distinct = len(np.unique(points, axis=0))
    generator = np.random.default_rng(seed)
    wanted = range(2, min(MOST_GROUPS, distinct, len(samples) - 1) + 1) if count is None else [min(count, distinct)]
    found = []
    for number in wanted:
        labels = _k_means(points, number, generator)
        found.append((number, silhouette(points, labels, generator), labels))
    tried = tuple((number, score) for number, score, _ in found if number > 1)
    best = max(found, key=lambda each: each[1], default=None)
    if best is None or best[0] == 1 or (count is None and not _is_structure(points, best[0], best[1], generator)):
        best = (1, math.nan, np.zeros(len(samples), dtype=np.int64))
    number, score, labels = best
    groups = [_group(labels == label, points, known, names, order) for label in range(number)]
    groups.sort(key=lambda each: (-len(each.members), each.members))
    return Grouping(groups=tuple(groups), silhouette=score if number > 1 else None, tried=tried)


def _is_structure(points: Floats, number: int, score: float, generator: np.random.Generator) -> bool:
    """Whether the groups are further apart than those found in points that are spread evenly over the same ranges."""
    if score < WEAKEST:
        return False
    low, high = points.min(axis=0), points.max(axis=0)
    for _ in range(_REFERENCES):
        even = generator.uniform(low, high, size=(min(len(points), SAMPLE), points.shape[1]))
        if silhouette(even, _k_means(even, number, generator), generator) >= score:
            return False
    return True


def silhouette(points: Floats, labels: NDArray[np.int64], generator: np.random.Generator) -> float:
    """Mean of (b - a) / max(a, b) over the samples: a is the mean distance to the own group, b to the nearest other one
    (Rousseeuw 1987); 0 for a sample alone in its group. Taken over a drawn SAMPLE where there are more."""
    if len(points) > SAMPLE:
        chosen = generator.choice(len(points), SAMPLE, replace=False)
        points, labels = points[chosen], labels[chosen]
    present = np.unique(labels)
    if len(present) < 2:
        return 0.0
    distances = np.sqrt(_squares(points, points))
    members = np.array([labels == label for label in present], dtype=np.float64)
    sums, sizes = distances @ members.T, members.sum(axis=1)
    own = members.T > 0
    within = sums[own] / np.maximum(1, sizes[own.argmax(axis=1)] - 1)
    between = np.where(own, np.inf, sums / sizes).min(axis=1)
    larger = np.maximum(within, between)
    values = np.where(larger > 0, (between - within) / np.where(larger > 0, larger, 1.0), 0.0)
    values[sizes[own.argmax(axis=1)] == 1] = 0.0
    return float(values.mean())


def _number(value: float | None) -> float:
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _points(known: Floats) -> Floats:
    """Filled and scaled; one more column for each feature that only some of the samples have."""
    columns: list[Floats] = []
    for column in known.T:
        has = np.isfinite(column)
        if has.any():
            columns.append(np.where(has, column, np.median(column[has])))
        if has.any() and not has.all():
            columns.append(has.astype(np.float64))
    scaled = [(column - column.mean()) / column.std() for column in columns if column.std() > 1e-12]
    return np.column_stack(scaled) if scaled else np.zeros((len(known), 1))


def _k_means(points: Floats, number: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The best of several starts of k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's rounds."""
    best, least = np.zeros(len(points), dtype=np.int64), math.inf
    for _ in range(_STARTS if number > 1 else 0):
        labels, spread = _lloyd(points, _seeds(points, number, generator))
        if spread < least - 1e-12:
            best, least = labels, spread
    return best


def _seeds(points: Floats, number: int, generator: np.random.Generator) -> Floats:
    """Each next seed is drawn by its squared distance from those before, so it is never one of them."""
    chosen = [int(generator.integers(len(points)))]
    nearest = _squares(points, points[chosen])[:, 0]
    while len(chosen) < number:
        chosen.append(int(generator.choice(len(points), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, _squares(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _lloyd(points: Floats, centres: Floats) -> tuple[NDArray[np.int64], float]:
    labels = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        squares = _squares(points, centres)
        nearest = squares.argmin(axis=1)
        for empty in np.flatnonzero(np.bincount(nearest, minlength=len(centres)) == 0):
            # A group that lost its last member gets the sample that fits worst.
            worst = int(squares[np.arange(len(points)), nearest].argmax())
            nearest[worst], squares[worst] = empty, 0.0
        if np.array_equal(nearest, labels):
            break
        labels = nearest
        centres = np.array([points[labels == label].mean(axis=0) for label in range(len(centres))])
    return labels, float(_squares(points, centres)[np.arange(len(points)), labels].sum())


def _squares(points: Floats, centres: Floats) -> Floats:
    """Squared distances, one row per point: one feature at a time, so that no third axis is held."""
    found = np.zeros((len(points), len(centres)))
    for feature in range(points.shape[1]):
        found += (points[:, [feature]] - centres[:, feature]) ** 2
    return found


def _group(
    is_member: NDArray[np.bool_], points: Floats, known: Floats, names: Sequence[str], order: Sequence[int]
) -> Group:  # fmt: skip
    """`order` gives the samples' own places."""
    members = np.flatnonzero(is_member)
    middle = points[members].mean(axis=0, keepdims=True)
    features = []
    for name, column in zip(names, known[members].T, strict=True):
        values = column[np.isfinite(column)]
        median, low, high = (
            (float(np.median(values)), float(values.min()), float(values.max())) if len(values) else (None,) * 3
        )
        features.append(Feature(name=name, known=len(values), median=median, low=low, high=high))
    return Group(
        members=tuple(sorted(order[member] for member in members.tolist())),
        centre=order[int(members[_squares(points[members], middle)[:, 0].argmin()])],
        features=tuple(features),
    )
