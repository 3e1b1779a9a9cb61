"""CacheBlend's view of two KV caches: which tokens' KV must be computed anew when chunks' KV is put together.

After arXiv 2405.16444 and its implementation: at a check layer the tokens with the highest KV deviation (HKVD) are
chosen, deviation being the squared difference of V summed over heads and channels; the last `suffix_len` tokens (the
question) are always computed. The baseline is the full prefill, the target the reused KV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.kv.rows import Floats

RECOMPUTE_RATIO, RAISED_RATIO, LOWERED_RATIO = 0.16, 0.25, 0.10
"""The default, and what to try when the quality drops or the time to first token does not improve."""
CHECK_LAYER = 1
HISTOGRAM_BINS = 50
_CURVE_STEPS = 50

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a check layer chooses. `tokens` rise and end in the suffix; `share` is of all tokens. `coverage` is the
    share of this layer's deviation outside the suffix that lies in the chosen tokens, `coverage_elsewhere` the mean of
    that over the other layers (None with one layer)."""

    layer: int
    tokens: tuple[int, ...]
    high_deviation_tokens: int
    share: float
    coverage: float
    coverage_elsewhere: float | None
    lowest_chosen: float | None
    highest_chosen: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """`overlaps` is the Jaccard index of the layers' high-deviation tokens, (layers, layers). `curve` has for each
    check layer the coverage at each of `ratios`. `histogram` is of the first check layer's deviations: counts, edges.
    """

    layers: tuple[int, ...]
    tokens: int
    suffix_len: int
    ratio: float
    selections: tuple[Selection, ...]
    overlaps: Floats
    ratios: tuple[float, ...]
    curve: tuple[tuple[float, ...], ...]
    histogram: tuple[tuple[int, ...], tuple[float, ...]]
    coverages: Mapping[float, float]
    """What a selection at the check layers covers in the other layers, at the ratios that a recommendation is about."""
    best_layer: tuple[int, float]
    """The layer whose selection covers the others best, and how much of them it does."""


def blend(
    deviations: Mapping[int, Floats],
    *,
    ratio: float = RECOMPUTE_RATIO,
    check_layers: Sequence[int] = (CHECK_LAYER,),
    suffix_len: int = 0,
) -> Blend:
    """The view of the deviations (tokens,) of each layer. ValueError for a layer or suffix that is not there."""
    layers = tuple(deviations)
    missing = [layer for layer in check_layers if layer not in deviations]
    if missing:
        raise ValueError(f"check layer {missing[0]} has no V; layers with V are {layers[0]} to {layers[-1]}")
    lengths = {len(each) for each in deviations.values()}
    if len(lengths) != 1:
        raise ValueError(f"layers have {sorted(lengths)} tokens; the CacheBlend view needs the same in all")
    tokens = lengths.pop()
    if not 0 <= suffix_len < tokens:
        raise ValueError(f"suffix of {suffix_len} tokens; it must be from 0 to {tokens - 1}, one less than all tokens")
    table = np.array([deviations[layer][: tokens - suffix_len] for layer in layers])
    chosen = np.array([high_deviation(row, ratio) for row in table])
    selections = tuple(_selection(table, chosen, layers, layer, suffix_len) for layer in check_layers)
    ratios = tuple(sorted({*(np.arange(_CURVE_STEPS + 1) / _CURVE_STEPS).tolist(), *_marks(ratio)}))
    places = [layers.index(layer) for layer in check_layers]
    rows = [table[place] for place in places]
    coverages = {
        each: min(_judged(table, high_deviation(table[place], each), place) for place in places)
        for each in _marks(ratio)
    }
    elsewhere = [_judged(table, mask, place) for place, mask in enumerate(chosen)]
    best = int(np.argmax(elsewhere))
    return Blend(
        layers=layers,
        tokens=tokens,
        suffix_len=suffix_len,
        ratio=ratio,
        selections=selections,
        overlaps=_overlaps(chosen),
        ratios=ratios,
        curve=tuple(tuple(_coverage(row, high_deviation(row, each)) for each in ratios) for row in rows),
        histogram=_histogram(rows[0]),
        coverages=coverages,
        best_layer=(layers[best], elsewhere[best]),
    )


def _marks(ratio: float) -> tuple[float, ...]:
    return (LOWERED_RATIO, RECOMPUTE_RATIO, RAISED_RATIO, ratio)


def high_deviation(deviations: Floats, ratio: float) -> Mask:
    """The floor(ratio x tokens) tokens with the highest deviation; of equal ones the first."""
    count = int(len(deviations) * ratio + 1e-9)
    chosen = np.zeros(len(deviations), np.bool_)
    chosen[np.argsort(-deviations, kind="stable")[:count]] = True
    return chosen


def _coverage(deviations: Floats, chosen: Mask) -> float:
    """Share of the deviation in the chosen tokens; 1 where nothing deviates. Tokens that are not finite count alone."""
    is_broken = ~np.isfinite(deviations)
    if is_broken.any():
        return float((is_broken & chosen).sum() / is_broken.sum())
    highest = float(deviations.max(initial=0.0))
    if not highest:
        return 1.0
    scaled = np.ldexp(deviations, -int(np.frexp(highest)[1]))  # so that no sum overflows
    return float(scaled[chosen].sum()) / float(scaled.sum())


def _elsewhere(table: Floats, chosen: Mask, index: int) -> float | None:
    others = [_coverage(row, chosen) for place, row in enumerate(table) if place != index]
    return float(np.mean(others)) if others else None


def _judged(table: Floats, chosen: Mask, index: int) -> float:
    """The coverage that counts: of the other layers, or of the only one."""
    elsewhere = _elsewhere(table, chosen, index)
    return _coverage(table[index], chosen) if elsewhere is None else elsewhere


def _selection(table: Floats, chosen: Mask, layers: Sequence[int], layer: int, suffix_len: int) -> Selection:
    index = layers.index(layer)
    row, mask = table[index], chosen[index]
    picked = np.flatnonzero(mask)
    tokens = (*picked.tolist(), *range(len(row), len(row) + suffix_len))
    finite = row[mask][np.isfinite(row[mask])]
    return Selection(
        layer=layer,
        tokens=tokens,
        high_deviation_tokens=len(picked),
        share=len(tokens) / (len(row) + suffix_len),
        coverage=_coverage(row, mask),
        coverage_elsewhere=_elsewhere(table, mask, index),
        lowest_chosen=float(finite.min()) if len(finite) else None,
        highest_chosen=float(finite.max()) if len(finite) else None,
    )


def _overlaps(chosen: Mask) -> Floats:
    """Jaccard index of each two rows; 1 for two empty ones."""
    numbers = chosen.astype(np.float64)
    common = numbers @ numbers.T
    sizes = numbers.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - common
    return np.where(union > 0, common / np.maximum(union, 1.0), 1.0)


def _histogram(deviations: Floats) -> tuple[tuple[int, ...], tuple[float, ...]]:
    finite = deviations[np.isfinite(deviations)]
    if not len(finite):
        finite = np.zeros(1)
    counts, edges = np.histogram(finite, bins=HISTOGRAM_BINS, range=_range_of(finite))
    return tuple(counts.tolist()), tuple(edges.tolist())


def _range_of(finite: Floats) -> tuple[float, float]:
    """From the lowest to the highest, widened where so many bins between them would be narrower than numbers are."""
    low, high = float(finite.min()), float(finite.max())
    if np.all(np.diff(np.linspace(low, high, HISTOGRAM_BINS + 1)) > 0):
        return low, high
    half = max(0.5, HISTOGRAM_BINS * float(np.finfo(np.float64).eps) * high)
    return low - half, min(high + half, float(np.finfo(np.float64).max))
