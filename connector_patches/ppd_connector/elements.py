"""The cache's element types as numpy sees them: bf16 and fp8 have no numpy type, so they travel as raw integers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Raw = NDArray[Any]
Values = NDArray[np.float32]

RAW_TYPES: Mapping[str, type[np.generic]] = MappingProxyType(
    {
        "float32": np.uint32,
        "float16": np.uint16,
        "bfloat16": np.uint16,
        "uint8": np.uint8,
        "int8": np.uint8,
        "float8_e4m3fn": np.uint8,
        "float8_e5m2": np.uint8,
    }
)
# Where the exponent and the upper half of the mantissa lie: a flip there is seen in the value, a flip below is noise.
HIGH_BITS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "float32": (12, 31),
        "float16": (5, 15),
        "bfloat16": (4, 15),
        "float8_e4m3fn": (2, 7),
        "float8_e5m2": (1, 7),
        "uint8": (4, 8),
        "int8": (4, 8),
    }
)


def to_float32(raw: Raw, dtype: str) -> Values:
    """The values; `uint8` and `int8` count as e4m3, which is how quantized caches store them."""
    if dtype == "float32":
        return raw.view(np.float32)
    if dtype == "float16":
        return raw.view(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if dtype == "float8_e5m2":
        return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    return e4m3_values()[raw]


def from_float32(values: Values, dtype: str) -> Raw:
    """Rounded to nearest, ties to even."""
    if dtype == "float32":
        return values.astype(np.float32).view(np.uint32)
    if dtype == "float16":
        return values.astype(np.float16).view(np.uint16)
    if dtype == "bfloat16":
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if dtype == "float8_e5m2":
        return _to_e5m2(values)
    return to_e4m3(values)


def e4m3_values() -> Values:
    """The 256 values of e4m3fn by their code: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities."""
    codes = np.arange(256)
    exponents, mantissas = (codes >> 3) & 15, codes & 7
    normal = np.ldexp(1.0 + mantissas / 8.0, exponents - 7)
    values = np.where(exponents == 0, np.ldexp(mantissas / 8.0, -6), normal)
    values = np.where(codes & 128, -values, values)
    values[[127, 255]] = np.nan, -np.nan
    return values.astype(np.float32)


def to_e4m3(values: Values) -> Raw:
    """Codes of the nearest e4m3 values; what is larger than 448 becomes 448, NaN stays NaN."""
    return _nearest(values, e4m3_values()[:127])


def _to_e5m2(values: Values) -> Raw:
    """As IEEE has it: what is nearer to 65536 than to the largest value, 57344, becomes infinite."""
    positive = to_float32(np.arange(125, dtype=np.uint8), "float8_e5m2")
    positive[124] = 65536.0
    return _nearest(values, positive)


def _nearest(values: Values, positive: Values) -> Raw:
    """Codes of the nearest among ascending values that are numbered from 0, the even one of two; 127 for NaN."""
    is_nan = np.isnan(values)
    magnitudes = np.minimum(np.abs(np.where(is_nan, np.float32(0), values)), positive[-1])
    above = np.clip(np.searchsorted(positive, magnitudes), 1, len(positive) - 1)
    below_gap, above_gap = magnitudes - positive[above - 1], positive[above] - magnitudes
    is_even_above = above % 2 == 0
    codes = np.where((above_gap < below_gap) | ((above_gap == below_gap) & is_even_above), above, above - 1)
    return (np.where(is_nan, 127, codes) | np.where(np.signbit(values), 128, 0)).astype(np.uint8)
