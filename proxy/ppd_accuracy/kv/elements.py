"""Element types of KV caches: their bits, their values, and how far two of them are apart.

bf16 and fp8 have no numpy type: they are held as raw uint16 and uint8. All functions here take raw unsigned integers.
Layouts: IEEE 754 for fp16, fp32 and fp64; bf16 is the upper half of fp32; e4m3fn (no infinities, one NaN per sign) and
e5m2 as in "FP8 Formats for Deep Learning", arXiv 2209.05433.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Raw = NDArray[Any]
"""Unsigned integers that hold the bits of floating-point numbers."""
Values = NDArray[Any]
"""float32, or float64 for fp64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """One floating-point format: a sign bit, `exponent_bits` and `mantissa_bits` (without the implied one)."""

    name: str
    exponent_bits: int
    mantissa_bits: int
    has_infinity: bool
    largest: float

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def raw_type(self) -> np.dtype[Any]:
        """The unsigned integers of this size."""
        return np.dtype(f"u{self.bytes}")

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding a number in the normal range to the nearest."""
        return 2.0 ** -(self.mantissa_bits + 1)

    @property
    def smallest(self) -> float:
        """The smallest number above zero (subnormal)."""
        bias = 2 ** (self.exponent_bits - 1) - 1
        return float(2.0 ** (1 - bias - self.mantissa_bits))

    @property
    def sign_bit(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def first_non_finite(self) -> int:
        """Magnitudes (bits without the sign) from this one on are infinite or NaN."""
        if not self.has_infinity:
            return self.sign_bit - 1
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits


FP64 = ElementType(
    name="fp64", exponent_bits=11, mantissa_bits=52, has_infinity=True, largest=float(np.finfo(np.float64).max)
)
FP32 = ElementType(
    name="fp32", exponent_bits=8, mantissa_bits=23, has_infinity=True, largest=float(np.finfo(np.float32).max)
)
FP16 = ElementType(name="fp16", exponent_bits=5, mantissa_bits=10, has_infinity=True, largest=65504.0)
BF16 = ElementType(name="bf16", exponent_bits=8, mantissa_bits=7, has_infinity=True, largest=2.0**127 * (2 - 2.0**-7))
FP8_E4M3 = ElementType(name="fp8_e4m3", exponent_bits=4, mantissa_bits=3, has_infinity=False, largest=448.0)
FP8_E5M2 = ElementType(name="fp8_e5m2", exponent_bits=5, mantissa_bits=2, has_infinity=True, largest=57344.0)

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
    found = BY_NAME.get(name.strip().lower().removeprefix("torch."))
    if found is None:
        known = ", ".join(element.name for element in FROM_COARSE_TO_FINE)
        raise ValueError(f"element type {name!r} is unknown; known are {known}")
    return found


def decode(raw: Raw, element: ElementType) -> Values:
    """The values as float32 (float64 for fp64), exactly. Same shape."""
    if element is FP64:
        return raw.view(np.float64)
    if element is FP32:
        return raw.view(np.float32)
    if element is FP16:
        return raw.view(np.float16).astype(np.float32)
    if element is BF16:
        wide = raw.astype(np.uint32)
        wide <<= np.uint32(16)
        return wide.view(np.float32)
    return np.take(_fp8_values(element), raw)


def _fp8_values(element: ElementType) -> NDArray[np.float32]:
    """The 256 values by their code. With exponent and mantissa at the top of an fp16, an e4m3 is off by 2^8 only."""
    codes = np.arange(256, dtype=np.uint16)
    magnitudes = (codes & 127) << (10 - element.mantissa_bits)
    values = (magnitudes | (codes & 128) << 8).view(np.float16).astype(np.float32)
    if element is FP8_E4M3:
        values *= np.float32(256)
        values[[127, 255]] = np.nan
    return values


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
