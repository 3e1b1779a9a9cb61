"""One tensor against another: figures, verdict, what went wrong where, and what the views over all layers need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ppd_accuracy.kv.elements import ElementType
from ppd_accuracy.kv.figures import AXES, Axis, Figures, along, of_tensor, token_errors
from ppd_accuracy.kv.findings import CacheFinding
from ppd_accuracy.kv.patterns import find_patterns
from ppd_accuracy.kv.rows import Floats, Tensor, compare_rows
from ppd_accuracy.kv.sketches import Sketch, sample
from ppd_accuracy.kv.tolerance import ArrayVerdict, Tolerance, differing_rows, judge

COLUMNS = 128
"""Of the heat map, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRules:
    """`declared` is the element type that the caller vouches for, None where the tensors' own decide. `details` is
    along which axes figures are kept."""

    declared: ElementType | None = None
    limits: Tolerance = field(default_factory=Tolerance)
    block_size: int = 16
    details: Sequence[Axis] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheComparison:
    """`heat` has the first token of each of at most COLUMNS bins and the largest relative L2 of its tokens;
    `deviations` the squared difference of each token summed over heads and channels (CacheBlend's KV deviation).
    Both are infinite where something is not finite. `samples` are rows of baseline and target."""

    shape: tuple[int, int, int]
    figures: Figures
    verdict: ArrayVerdict
    findings: tuple[CacheFinding, ...]
    details: Mapping[Axis, Figures]
    heat: tuple[tuple[int, ...], tuple[float, ...]]
    deviations: Floats
    samples: tuple[Sketch, Sketch]
    worst: Mapping[Axis, int]
    """Place of the worst head, block and token."""


def compare_tensors(baseline: Tensor, target: Tensor, rules: CacheRules) -> CacheComparison:
    """Everything about two tensors of one shape; ValueError where the shapes differ or hold nothing."""
    rows = compare_rows(baseline, target)
    figures = of_tensor(rows)
    verdict = judge(rows, figures, baseline, target, declared=rules.declared, limits=rules.limits)
    findings: tuple[CacheFinding, ...] = ()
    if not verdict.is_pass:
        beyond = differing_rows(rows, verdict.element, baseline, target)
        findings = find_patterns(
            rows, beyond, baseline, target,
            block_size=rules.block_size, element=verdict.element, rounding=verdict.rounding,
        )  # fmt: skip
    by_axis: dict[Axis, Figures] = {axis: along(rows, axis, rules.block_size) for axis in AXES}
    is_broken = rows.not_finite.sum(axis=0) > 0
    return CacheComparison(
        shape=baseline.shape,
        figures=figures,
        verdict=verdict,
        findings=findings,
        details={axis: by_axis[axis] for axis in rules.details},
        heat=binned(token_errors(rows)),
        deviations=np.where(is_broken, np.inf, rows.squared_difference.sum(axis=0)),
        samples=(sample(baseline), sample(target)),
        worst={axis: _worst(each) for axis, each in by_axis.items()},
    )


def _worst(figures: Figures) -> int:
    """Where the relative L2 is the largest; what is not finite is worse."""
    broken = figures.nan_baseline + figures.nan_target + figures.infinite_baseline + figures.infinite_target
    is_broken = broken > 2 * figures.infinite_matches
    return int(np.argmax(np.where(is_broken, np.inf, np.nan_to_num(figures.relative_l2, nan=np.inf))))


def binned(errors: Floats, columns: int = COLUMNS) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A heat map's row: the first token of each of at most `columns` bins, and the largest error in it."""
    count = min(columns, len(errors))
    starts = (np.arange(count) * len(errors)) // count
    return tuple(starts.tolist()), tuple(np.maximum.reduceat(errors, starts).tolist())
