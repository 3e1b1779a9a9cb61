"""One pass over two tensors: what differs in each row, a row being one head's channels of one token.

Everything else (per tensor, head, block or token) is a sum or a maximum over rows. Tensors are read piece by piece, so
memory is a piece and the rows' figures, whatever the tensor's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.kv.elements import (
    FP64,
    ElementType,
    Raw,
    Values,
    common_type,
    convert,
    decode,
    magnitudes_of,
    ulp_distance,
)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
PIECE = 65_536
"""Elements that are worked on at once: what fits a core's cache."""
_LOW, _HIGH = 2.0**-40, 2.0**40
"""Between these, float32 squares neither overflow nor vanish beside the largest."""


class Tensor(Protocol):
    """Something that can be read piece by piece: (heads, tokens, channels), the last index running fastest."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def element(self) -> ElementType: ...

    def read(self, start: int, stop: int) -> Raw:
        """Elements start to stop of the flattened tensor, as raw unsigned integers. Read only, valid until the next."""
        ...


@dataclass(slots=True, kw_only=True)
class Rows:
    """Figures of each row, shape (heads, tokens). Over pairs of which both are finite, `pairs` of them;
    `changed` of these differ.

    `used_bits_*` are the OR of all raw integers in the type `element` that both were compared in. `infinite_matches`
    are infinities of one sign on both sides.
    """

    element: ElementType
    channels: int
    squared_difference: Floats
    squared_baseline: Floats
    squared_target: Floats
    total_difference: Floats
    largest_difference: Floats
    largest_baseline: Floats
    largest_target: Floats
    total_ulp: Floats
    largest_ulp: Floats
    pairs: Counts
    changed: Counts
    nan_baseline: Counts
    nan_target: Counts
    infinite_baseline: Counts
    infinite_target: Counts
    infinite_matches: Counts
    used_bits_baseline: int = 0
    used_bits_target: int = 0

    @property
    def heads(self) -> int:
        return int(self.pairs.shape[0])

    @property
    def tokens(self) -> int:
        return int(self.pairs.shape[1])

    @property
    def not_finite(self) -> Counts:
        """Elements that can never pass: NaN on either side, or infinite on one side or with another sign."""
        infinite = self.infinite_baseline + self.infinite_target - 2 * self.infinite_matches
        return self.nan_baseline + self.nan_target + infinite


_SUMS = ("squared_difference", "squared_baseline", "squared_target", "total_difference", "total_ulp")
_MAXIMA = ("largest_difference", "largest_baseline", "largest_target", "largest_ulp")
_USED = ("used_bits_baseline", "used_bits_target")
_COUNTS = ("pairs", "changed", "nan_baseline", "nan_target", "infinite_baseline", "infinite_target", "infinite_matches")


_Piece = dict[str, Any]
"""What one piece adds to its rows: one element per row, named as in Rows; nothing to what is not named."""


def compare_rows(baseline: Tensor, target: Tensor) -> Rows:
    """The figures of all rows. Both must have one shape; ValueError otherwise, and for a shape without elements."""
    if baseline.shape != target.shape:
        raise ValueError(f"shapes {baseline.shape} and {target.shape} differ; tensors of one shape can be compared")
    heads, tokens, channels = baseline.shape
    if not heads * tokens * channels:
        raise ValueError(f"shape {baseline.shape} has no elements; there is nothing to compare")
    element = common_type(baseline.element, target.element)
    rows = heads * tokens
    figures: dict[str, Any] = {name: np.zeros(rows) for name in (*_SUMS, *_MAXIMA)}
    figures |= {name: np.zeros(rows, np.int64) for name in _COUNTS}
    used: dict[str, Any] = dict.fromkeys(_USED, 0)
    with np.errstate(all="ignore"):  # overflowing sums become infinite, and nothing infinite passes
        for first, last, start, stop in pieces(rows, channels):
            ones = convert(baseline.read(start, stop), baseline.element, element).reshape(last - first, -1)
            others = convert(target.read(start, stop), target.element, element).reshape(last - first, -1)
            for name, values in _compare(ones, others, element).items():
                if name in _USED:
                    used[name] |= values
                elif name in _MAXIMA:
                    np.maximum(figures[name][first:last], values, out=figures[name][first:last])
                else:
                    figures[name][first:last] += values
    shaped = {name: array.reshape(heads, tokens) for name, array in figures.items()}
    return Rows(element=element, channels=channels, **used, **shaped)


def pieces(rows: int, channels: int) -> Iterator[tuple[int, int, int, int]]:
    """First and last row and first and last element of each piece: whole rows, or a part of a very long one."""
    step = max(1, PIECE // channels)
    width = channels if step > 1 else min(channels, PIECE)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        if last - first > 1:
            yield first, last, first * channels, last * channels
            continue
        for start in range(first * channels, last * channels, width):
            yield first, last, start, min(start + width, last * channels)


def _compare(ones: Raw, others: Raw, element: ElementType) -> _Piece:
    """Both (rows, channels)."""
    first, second = magnitudes_of(ones, element), magnitudes_of(others, element)
    limit = element.first_non_finite
    if int(first.max()) >= limit or int(second.max()) >= limit:
        return _compare_with_gaps(ones, others, element)
    return _compare_finite(ones, others, first, second, element) | {"pairs": ones.shape[1]}


def _compare_finite(ones: Raw, others: Raw, first: Raw, second: Raw, element: ElementType) -> _Piece:
    """`first` and `second` are the magnitudes of both."""
    used = {name: int(np.bitwise_or.reduce(raw, axis=None)) for name, raw in zip(_USED, (ones, others), strict=True)}
    values = decode(ones, element)
    largest = _decoded_maximum(first, element)
    squares = _squares(values, float(largest.max()))
    if np.array_equal(ones, others):
        return _Piece(
            **used, squared_baseline=squares, squared_target=squares, largest_baseline=largest, largest_target=largest
        )
    other_values, other_largest = decode(others, element), _decoded_maximum(second, element)
    highest = max(float(largest.max()), float(other_largest.max()))
    other_squares = _squares(other_values, float(other_largest.max()))
    if highest > _HIGH and element is not FP64:  # the difference of two float32 may not fit one
        values, other_values = values.astype(np.float64), other_values.astype(np.float64)
    difference = values - other_values
    np.abs(difference, out=difference)
    distance = ulp_distance(ones, others, element)
    largest_difference = difference.max(axis=1)
    return _Piece(
        **used,
        squared_difference=_squares(difference, float(largest_difference.max())),
        squared_baseline=squares,
        squared_target=other_squares,
        total_difference=_total(difference),
        largest_difference=largest_difference,
        largest_baseline=largest,
        largest_target=other_largest,
        total_ulp=distance.sum(axis=1, dtype=np.float64) if element is FP64 else distance.sum(axis=1, dtype=np.uint64),
        largest_ulp=distance.max(axis=1),
        changed=np.count_nonzero(distance, axis=1),
    )


def _compare_with_gaps(ones: Raw, others: Raw, element: ElementType) -> _Piece:
    """The same where something is not finite: those pairs are counted and left out."""
    first, second = magnitudes_of(ones, element), magnitudes_of(others, element)
    limit = first.dtype.type(element.first_non_finite)
    is_nan = [magnitude > limit if element.has_infinity else magnitude == limit for magnitude in (first, second)]
    is_infinite = [(magnitude == limit) & element.has_infinity for magnitude in (first, second)]
    is_gap = (first >= limit) | (second >= limit)
    is_match = is_infinite[0] & is_infinite[1] & (ones == others)
    zero = first.dtype.type(0)
    ones, others = np.where(is_gap, zero, ones), np.where(is_gap, zero, others)
    piece = _compare_finite(ones, others, magnitudes_of(ones, element), magnitudes_of(others, element), element)
    for side, nan, infinite in zip(("baseline", "target"), is_nan, is_infinite, strict=True):
        piece |= {f"nan_{side}": nan.sum(axis=1), f"infinite_{side}": infinite.sum(axis=1)}
    return piece | {"pairs": (~is_gap).sum(axis=1), "infinite_matches": is_match.sum(axis=1)}


def _decoded_maximum(magnitudes: Raw, element: ElementType) -> Floats:
    return decode(np.ascontiguousarray(magnitudes.max(axis=1)), element).astype(np.float64)


def _squares(values: Values, largest: float) -> Floats:
    """Sum of the squares of each row; `largest` is the largest absolute value of all."""
    if values.dtype == np.float32 and largest and not _LOW <= largest <= _HIGH:
        values = values.astype(np.float64)
    sums: Floats = np.vecdot(values, values).astype(np.float64)
    return sums


def _total(values: Values) -> Floats:
    sums: Floats = np.vecdot(values, np.ones(values.shape[1], values.dtype)).astype(np.float64)
    return sums


def count_beyond(baseline: Tensor, target: Tensor, *, ulp: int, floor: float) -> int:
    """How many elements are more than `ulp` representable numbers and more than `floor` apart, or not finite.

    Numbers are those of the type that both can be held in (`common_type`). `floor` is for the numbers near zero of a
    coarser type, whose steps are of one size.
    """
    heads, tokens, channels = baseline.shape
    element = common_type(baseline.element, target.element)
    beyond = 0
    with np.errstate(all="ignore"):
        for _, _, start, stop in pieces(heads * tokens, channels):
            ones = convert(baseline.read(start, stop), baseline.element, element)
            others = convert(target.read(start, stop), target.element, element)
            is_far = ulp_distance(ones, others, element) > ulp
            if is_far.any():
                difference = np.abs(decode(ones, element)[is_far].astype(np.float64) - decode(others, element)[is_far])
                beyond += int((~(difference <= floor)).sum())
    return beyond
