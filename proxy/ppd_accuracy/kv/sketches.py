"""Sketches: a few random projections of each row, enough to see whether two rows hold the same numbers.

Looking for where a row came from compares every row with every other; on sketches that is cheap. The relative distance
of two sketches is that of the rows within some tens of percent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.kv.elements import ElementType, Values, decode
from ppd_accuracy.kv.rows import Tensor, pieces

Sketch = NDArray[np.float32]
ROW_WIDTH = 8
TOKEN_WIDTH = 32
_SEED = 20240516
_SAMPLED_ROWS, _SAMPLED_CHANNELS = 64, 256
_TABLE = 250_000
"""Distances that are held at once."""


def sketch(tensor: Tensor) -> Sketch:
    """Of each row: (heads, tokens, ROW_WIDTH). What is not finite counts as zero."""
    heads, tokens, channels = tensor.shape
    projection = _signs(channels, ROW_WIDTH)
    found = np.zeros((heads * tokens, ROW_WIDTH), np.float32)
    with np.errstate(all="ignore"):
        for first, last, start, stop in pieces(heads * tokens, channels):
            values = decode(tensor.read(start, stop), tensor.element).reshape(last - first, -1)
            column = start - first * channels
            found[first:last] += _finite(values) @ projection[column : column + values.shape[1]]
    return np.nan_to_num(found.reshape(heads, tokens, ROW_WIDTH), copy=False, posinf=0.0, neginf=0.0)


def by_token(sketches: NDArray[Any]) -> NDArray[Any]:
    """Of each token over all heads: (tokens, at most TOKEN_WIDTH)."""
    heads, tokens, width = sketches.shape
    flat = np.ascontiguousarray(sketches.transpose(1, 0, 2)).reshape(tokens, heads * width)
    if heads * width <= TOKEN_WIDTH:
        return flat
    mixed: NDArray[Any] = flat @ _signs(heads * width, TOKEN_WIDTH)
    return mixed


def sample(tensor: Tensor) -> Sketch:
    """Some rows as they are, the same ones for every tensor of that shape: (at most 64, at most 256)."""
    heads, tokens, channels = tensor.shape
    chosen = np.unique(np.linspace(0, heads * tokens - 1, _SAMPLED_ROWS).astype(np.int64))
    width = min(channels, _SAMPLED_CHANNELS)
    rows = [decode(tensor.read(int(row) * channels, int(row) * channels + width), tensor.element) for row in chosen]
    return _finite(np.array(rows))


def match_tolerance(element: ElementType) -> float:
    """Up to which relative distance two rows are taken for the same numbers, rounded to that type."""
    return min(0.25, max(16 * element.unit_roundoff, 1e-3))


def nearest(ones: NDArray[Any], others: NDArray[Any]) -> NDArray[np.int64]:
    """For each of `ones` (the target's) the place of the closest of `others` (the baseline's): (n,)."""
    left, right = ones.reshape(len(ones), -1).astype(np.float64), others.reshape(len(others), -1).astype(np.float64)
    lengths = np.vecdot(right, right)
    right *= -2.0
    places = np.zeros(len(left), np.int64)
    batch = max(1, _TABLE // len(right))
    for start in range(0, len(left), batch):
        table = left[start : start + batch] @ right.T
        table += lengths  # less the squared length of the one, which is the same for all
        places[start : start + batch] = table.argmin(axis=1)
    return places


def own_distances(ones: Sketch, others: Sketch) -> NDArray[np.float64]:
    """Relative distance of each of `ones` from the one at the same place: (n,)."""
    left, right = ones.reshape(len(ones), -1), others.reshape(len(others), -1)
    difference = left - right
    with np.errstate(all="ignore"):
        found: NDArray[np.float64] = np.sqrt(np.vecdot(difference, difference) / np.vecdot(right, right).astype(float))
    found[np.isnan(found)] = np.inf
    return found


def row_lengths(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Over the last axis, whose place is left out."""
    numbers = rows.astype(np.float64, copy=False)
    lengths: NDArray[np.float64] = np.sqrt(np.vecdot(numbers, numbers))
    return lengths


def _signs(rows: int, columns: int) -> Sketch:
    """Random +1 and -1, the same ones every time."""
    signs = np.random.default_rng(_SEED).integers(0, 2, (rows, columns))
    return (2 * signs - 1).astype(np.float32)


def _finite(values: Values) -> Sketch:
    """What is no finite float32 counts as zero."""
    with np.errstate(over="ignore"):
        found: Sketch = np.nan_to_num(values.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
    return found
