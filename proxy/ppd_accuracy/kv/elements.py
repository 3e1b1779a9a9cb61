"""Element types of KV caches: their bits, their values, and how far two of them are apart.

All functions here take raw unsigned integers, as which bf16 and fp8 stand in files. What a type's bits mean is
`ml_dtypes`' and numpy's to say; e4m3 is e4m3fn (no infinities, one NaN per sign).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Raw = NDArray[Any]
"""Unsigned integers that hold the bits of floating-point numbers."""
Values = NDArray[Any]
"""float32, or float64 for fp64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """One floating-point format: a sign bit, `exponent_bits` and `mantissa_bits` (without the implied one). `largest`
    is its largest number, `smallest` the smallest above zero (subnormal)."""

    name: str
    dtype: np.dtype[Any]
    exponent_bits: int
    mantissa_bits: int
    has_infinity: bool
    largest: float
    smallest: float

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize

    @property
    def raw_type(self) -> np.dtype[Any]:
        """The unsigned integers of this size."""
        return np.dtype(f"u{self.bytes}")

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding a number in the normal range to the nearest."""
        return 2.0 ** -(self.mantissa_bits + 1)

    @property
    def sign_bit(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def first_non_finite(self) -> int:
        """Magnitudes (bits without the sign) from this one on are infinite or NaN."""
        if not self.has_infinity:
            return self.sign_bit - 1
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits


def _element(name: str, number: type[Any]) -> ElementType:
    dtype: np.dtype[Any] = np.dtype(number)
    limits = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return ElementType(
        name=name, dtype=dtype, exponent_bits=limits.nexp, mantissa_bits=limits.nmant,
        has_infinity=bool(np.isinf(number(np.inf))), largest=float(limits.max),
        smallest=float(limits.smallest_subnormal),
    )  # fmt: skip


FP64 = _element("fp64", np.float64)
FP32 = _element("fp32", np.float32)
FP16 = _element("fp16", np.float16)
BF16 = _element("bf16", ml_dtypes.bfloat16)
FP8_E4M3 = _element("fp8_e4m3", ml_dtypes.float8_e4m3fn)
FP8_E5M2 = _element("fp8_e5m2", ml_dtypes.float8_e5m2)

FROM_COARSE_TO_FINE = (FP8_E5M2, FP8_E4M3, BF16, FP16, FP32, FP64)

BY_NAME: Mapping[str, ElementType] = MappingProxyType(
    {
        **dict.fromkeys(("fp64", "float64", "double", "f64"), FP64),
        **dict.fromkeys(("fp32", "float32", "float", "f32"), FP32),
        **dict.fromkeys(("fp16", "float16", "half", "f16"), FP16),
        **dict.fromkeys(("bf16", "bfloat16"), BF16),
        **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e4m3fn", "float8_e4m3fn", "float8_e4m3", "f8_e4m3"), FP8_E4M3),
        **dict.fromkeys(("fp8_e5m2", "float8_e5m2", "f8_e5m2"), FP8_E5M2),
        # vLLM keeps quantized caches in integer tensors; their content is e4m3.
        **dict.fromkeys(("uint8", "int8"), FP8_E4M3),
    }
)


def element_type(name: str) -> ElementType:
    """The element type of that name (torch's, safetensors' or the short one, in any case; a `torch.` is ignored).

    Raises ValueError for a name that is none.
    """
    element = BY_NAME.get(name.strip().lower().removeprefix("torch."))
    if element is None:
        known = ", ".join(each.name for each in FROM_COARSE_TO_FINE)
        raise ValueError(f"element type {name!r} is unknown; known are {known}")
    return element


def decode(raw: Raw, element: ElementType) -> Values:
    """The values as float32 (float64 for fp64), exactly. Same shape."""
    if element.bytes == 1:  # looking 256 values up is several times as fast as converting each element
        return np.take(np.arange(256, dtype=np.uint8).view(element.dtype).astype(np.float32), raw)
    values = raw.view(element.dtype)
    return values if element.bytes >= 4 else values.astype(np.float32)


def common_type(one: ElementType, other: ElementType) -> ElementType:
    """The type both can be held in exactly: their own if it is one, else fp32 or fp64."""
    if one is other:
        return one
    return FP64 if FP64 in (one, other) else FP32


def convert(raw: Raw, element: ElementType, wanted: ElementType) -> Raw:
    """The same numbers as raw bits of a type that holds them all (`common_type`)."""
    if element is wanted:
        return raw
    values = decode(raw, element)
    if wanted is FP64:
        return values.astype(np.float64).view(np.uint64)
    return values.view(np.uint32)


def coarser(one: ElementType, other: ElementType) -> ElementType:
    """The one with fewer bits of mantissa."""
    return one if one.mantissa_bits <= other.mantissa_bits else other


def magnitudes_of(raw: Raw, element: ElementType) -> Raw:
    """The bits without the sign: they are in the order of the absolute values."""
    magnitudes: Raw = raw & raw.dtype.type(element.sign_bit - 1)
    return magnitudes


def ulp_distance(one: Raw, other: Raw, element: ElementType) -> Raw:
    """How many representable numbers lie between two, counting one of the ends; +0 and -0 are the same number.

    Raw integers of one type and shape in, unsigned integers of the same width out (the largest distance, from the
    largest negative to the largest positive number, fits). Meaningless where one is NaN.
    """
    first, second = magnitudes_of(one, element), magnitudes_of(other, element)
    low = np.minimum(first, second)
    distance: Raw = np.maximum(first, second, out=first)
    distance -= low
    # Across zero it is the sum of the magnitudes: twice the smaller one more.
    across: Raw = one ^ other
    across >>= across.dtype.type(element.bits - 1)
    low *= across
    distance += low
    distance += low
    return distance


def grid_of(used_bits: int, largest: float, element: ElementType) -> ElementType | None:
    """The coarsest type that all numbers of an array are numbers of, None if it is none but their own.

    `used_bits` is the OR of all raw integers, `largest` the largest absolute value. An array of zeros is on no grid.
    """
    if not largest > 0:
        return None
    mantissa = used_bits & ((1 << element.mantissa_bits) - 1)
    for grid in FROM_COARSE_TO_FINE:
        dropped = element.mantissa_bits - grid.mantissa_bits
        if dropped > 0 and not mantissa & ((1 << dropped) - 1) and largest <= grid.largest:
            return grid
    return None
