"""Rows whose ordinary elements are spoiled, though one large element keeps the row within its tolerance.

The tolerance of a row is a share of its length, and a channel that is large everywhere makes up most of that length:
beside it the others could be anything. So the elements are looked at one by one as well. An element is far off if

    |a - b| > s max(|a|, |b|) + s/4 m + the steps of the numbers near zero

where s is four units of roundoff and at least 1/4 (in fp8 two steps, the roundings of both sides twice over), and m the
median magnitude of the row's baseline without zeros: noise near zero is small beside that. A row is spoiled if more
than one element, and more than 1/16 of them, are far off. What was computed in another order and then rounded has next
to none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppd_accuracy.kv.elements import ElementType, common_type, convert, decode
from ppd_accuracy.kv.rows import Floats, Rows, Tensor, pieces

FAR_ROUNDINGS, LEAST_FAR = 4, 0.25
FAR_SHARE = 16
"""One in so many elements may be far off."""


def far_share(element: ElementType) -> float:
    """From which share of itself on an element is far off."""
    return max(FAR_ROUNDINGS * element.unit_roundoff, LEAST_FAR)


def spoiled_rows(
    rows: Rows, candidates: NDArray[np.bool_], element: ElementType, baseline: Tensor, target: Tensor
) -> NDArray[np.bool_]:
    """Which of the candidates, (heads, tokens), are spoiled for that type; reads only pieces that may hold one."""
    share = far_share(element)
    fewest = max(1, rows.channels // FAR_SHARE) + 1
    # An element that is far off is that many representable numbers away, so that most rows need not be read again.
    least_ulp = share * 2.0**rows.element.mantissa_bits
    suspects = (candidates & (rows.total_ulp >= fewest * least_ulp)).reshape(-1)
    found = np.zeros(suspects.size, np.bool_)
    if not suspects.any():
        return found.reshape(candidates.shape)
    common = common_type(baseline.element, target.element)
    with np.errstate(all="ignore"):
        for first, last, start, stop in pieces(suspects.size, rows.channels):
            places = np.flatnonzero(suspects[first:last])
            if not len(places):
                continue
            ones, others = (
                decode(
                    convert(side.read(start, stop), side.element, common).reshape(last - first, -1)[places], common
                ).astype(np.float64)
                for side in (baseline, target)
            )
            found[first + places] |= _far_off(ones, others, share, element.smallest) >= fewest
    return found.reshape(candidates.shape)


def _far_off(ones: Floats, others: Floats, share: float, step: float) -> NDArray[np.int64]:
    """How many elements of each row are far off."""
    first, second = np.abs(ones), np.abs(others)
    ordinary = _median_without_zeros(first)
    allowed = share * np.maximum(first, second) + (share / 4 * ordinary + step)[:, None]
    is_far = ~(np.abs(ones - others) <= allowed) & (ones != others)
    found: NDArray[np.int64] = np.count_nonzero(is_far, axis=1)
    return found


def _median_without_zeros(magnitudes: Floats) -> Floats:
    """Of each row; zero for a row of zeros."""
    sorted_magnitudes = np.sort(magnitudes, axis=1)
    count = magnitudes.shape[1]
    zeros = np.count_nonzero(sorted_magnitudes == 0, axis=1)
    place = np.minimum((zeros + count) // 2, count - 1)
    found: Floats = np.take_along_axis(sorted_magnitudes, place[:, None], axis=1)[:, 0]
    return found
