"""Element types, against arithmetic on single bits and, where numpy has the type, against numpy."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ppd_connector.elements import HIGH_BITS, RAW_TYPES, e4m3_values, from_float32, to_e4m3, to_float32
from ppd_connector.geometry import ITEM_BYTES

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def value_of(code, *, exponent_bits, mantissa_bits, bias):
    """One code read bit by bit: sign, exponent, mantissa. None for codes whose exponent is all ones."""
    sign = -1 if code >> (exponent_bits + mantissa_bits) else 1
    exponent, mantissa = code >> mantissa_bits & (2**exponent_bits - 1), code & (2**mantissa_bits - 1)
    if exponent == 0:
        return sign * Fraction(mantissa, 2**mantissa_bits) * Fraction(2) ** (1 - bias)
    return sign * (1 + Fraction(mantissa, 2**mantissa_bits)) * Fraction(2) ** (exponent - bias)


E4M3 = {code: value_of(code, exponent_bits=4, mantissa_bits=3, bias=7) for code in range(256) if code & 127 != 127}
E5M2 = {code: value_of(code, exponent_bits=5, mantissa_bits=2, bias=15) for code in range(256) if code & 127 < 124}
BF16_MAX = struct.unpack(">f", bytes.fromhex("7f7f0000"))[0]


def nearest(value, table, mask):
    """The code of the nearest value, the even one of two: the definition, read aloud."""
    exact, sign = Fraction(value), 128 if math.copysign(1.0, value) < 0 else 0
    candidates = {code: number for code, number in table.items() if code & 128 == sign}
    return min(candidates, key=lambda code: (abs(candidates[code] - exact), code & 1)) & mask


def raw(values, dtype):
    return from_float32(np.array(values, np.float32), dtype)


def test_every_type_is_known_everywhere():
    assert set(RAW_TYPES) == set(HIGH_BITS) == set(ITEM_BYTES)
    for dtype, kind in RAW_TYPES.items():
        assert np.dtype(kind).itemsize == ITEM_BYTES[dtype]
        low, high = HIGH_BITS[dtype]
        assert 0 <= low < high <= 8 * ITEM_BYTES[dtype]


def test_e4m3_has_its_256_values():
    values = e4m3_values()
    assert values.dtype == np.float32
    for code, number in E4M3.items():
        assert Fraction(float(values[code])) == number
    assert math.copysign(1, values[128]) == -1
    assert [code for code in range(256) if np.isnan(values[code])] == [127, 255]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "uint8", "int8"])
def test_every_e4m3_code_survives_a_round_trip(dtype):
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(from_float32(to_float32(codes, dtype), dtype), codes)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_16_bit_code_survives_a_round_trip(dtype):
    codes = np.arange(2**16, dtype=np.uint16)
    back = from_float32(to_float32(codes, dtype), dtype)
    is_nan = np.isnan(to_float32(codes, dtype))
    assert np.array_equal(back[~is_nan], codes[~is_nan])
    assert np.isnan(to_float32(back[is_nan], dtype)).all()


def test_every_e5m2_code_survives_a_round_trip():
    codes = np.arange(256, dtype=np.uint8)
    values = to_float32(codes, "float8_e5m2")
    for code, number in E5M2.items():
        assert Fraction(float(values[code])) == number
    assert list(values[[124, 252]]) == [math.inf, -math.inf]
    assert np.isnan(values[[125, 126, 127, 253, 254, 255]]).all()
    back = from_float32(values, "float8_e5m2")
    assert np.array_equal(back[~np.isnan(values)], codes[~np.isnan(values)])
    assert np.isnan(to_float32(back[np.isnan(values)], "float8_e5m2")).all()


@given(FINITE)
def test_float32_is_taken_as_it_is(value):
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    assert raw([value], "float32")[0] == bits
    assert to_float32(np.array([bits], np.uint32), "float32")[0] == np.float32(value)


@given(FINITE.filter(lambda value: abs(value) <= BF16_MAX))
@example(1.00390625)  # between two codes: the even one is below
@example(-1.01171875)  # the even one is above
def test_bf16_is_rounded_to_the_nearest_even(value):
    """Of the two 16-bit neighbours the nearer one, in exact fractions; the even one when both are as near."""
    bits = struct.unpack(">I", struct.pack(">f", value))[0]
    below = bits >> 16
    candidates = [below, below + 1] if abs(below & 0x7FFF) < 0x7F7F else [below]
    exact = {code: Fraction(struct.unpack(">f", struct.pack(">HH", code, 0))[0]) for code in candidates}
    wanted = min(candidates, key=lambda code: (abs(exact[code] - Fraction(value)), code & 1))
    assert raw([value], "bfloat16")[0] == wanted


@given(st.floats(width=32, allow_nan=False, min_value=-1000, max_value=1000))
def test_e4m3_is_rounded_to_the_nearest_even_and_capped(value):
    assert to_e4m3(np.array([value], np.float32))[0] == nearest(value, E4M3, 0xFF)


@given(st.floats(width=32, allow_nan=False, min_value=-57344, max_value=57344) | FINITE.map(lambda each: each % 1))
def test_e5m2_is_rounded_to_the_nearest_even(value):
    value = float(np.float32(value))
    assert raw([value], "float8_e5m2")[0] == nearest(value, E5M2, 0xFF)


@pytest.mark.parametrize(
    ("value", "code"),
    [(1.125, 60), (1.125000001, 60), (1.1250002, 61), (1.374, 61), (1.375, 62), (61439.9, 123), (61440.0, 124),
     (-1e30, 252), (-0.0, 128), (2**-17, 0), (1.0001 * 2**-17, 1)],
)  # fmt: skip
def test_e5m2_between_two_codes(value, code):
    assert raw([value], "float8_e5m2")[0] == code


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.0, 0), (-0.0, 128), (448.0, 126), (463.0, 126), (1e30, 126), (-1e30, 254), (math.inf, 126), (-math.inf, 254),
     (2**-10, 0), (2**-10 * 1.0001, 1), (1.0625, 56), (1.1875, 58)],
)  # fmt: skip
def test_e4m3_between_two_codes(value, code):
    assert to_e4m3(np.array([value], np.float32))[0] == code


def test_nan_stays_nan():
    nan = np.array([math.nan], np.float32)
    for dtype in RAW_TYPES:
        assert np.isnan(to_float32(from_float32(nan, dtype), dtype)).all(), dtype


@pytest.mark.parametrize(
    ("dtype", "mantissa"),
    [("float32", 23), ("float16", 10), ("bfloat16", 7), ("float8_e4m3fn", 3), ("float8_e5m2", 2)],
)
def test_a_flip_of_a_high_bit_is_seen_in_the_value(dtype, mantissa):
    """No flip strikes the sign or the lower half of the mantissa."""
    code = raw([1.75], dtype)
    for bit in range(*HIGH_BITS[dtype]):
        flipped = to_float32((code ^ (1 << bit)).astype(code.dtype), dtype)[0]
        assert not abs(flipped - 1.75) < 2.0 ** -(mantissa // 2), bit
        assert not flipped < 0
    assert HIGH_BITS[dtype][1] == 8 * ITEM_BYTES[dtype] - 1
