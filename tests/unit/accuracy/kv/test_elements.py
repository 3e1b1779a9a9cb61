"""Element types: every code's value, and the distance of two numbers counted out."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import TORCH_NAMES, gaussian, tensor

from ppd_accuracy.kv import elements
from ppd_accuracy.kv.elements import BF16, FP8_E4M3, FP8_E5M2, FP16, FP32, FP64, decode, grid_of, ulp_distance

SMALL = (FP8_E4M3, FP8_E5M2, FP16, BF16)


def value_of(code, element):
    """By the definition: sign, exponent, mantissa."""
    bias = 2 ** (element.exponent_bits - 1) - 1
    sign = -1.0 if code >> (element.bits - 1) else 1.0
    exponent = code >> element.mantissa_bits & (2**element.exponent_bits - 1)
    mantissa = (code & (2**element.mantissa_bits - 1)) / 2**element.mantissa_bits
    highest = 2**element.exponent_bits - 1
    if element.has_infinity and exponent == highest:
        return sign * np.inf if mantissa == 0 else np.nan
    if not element.has_infinity and code & (element.sign_bit - 1) == element.sign_bit - 1:
        return np.nan
    return sign * (np.ldexp(mantissa, 1 - bias) if exponent == 0 else np.ldexp(1 + mantissa, exponent - bias))


@pytest.mark.parametrize("element", SMALL, ids=lambda element: element.name)
def test_every_code_decodes_to_its_value(element):
    codes = np.arange(2**element.bits, dtype=element.raw_type)
    np.testing.assert_array_equal(decode(codes, element), [value_of(code, element) for code in range(2**element.bits)])


@pytest.mark.parametrize("element", SMALL, ids=lambda element: element.name)
def test_limits_of_a_type_are_those_of_its_numbers(element):
    values = np.array([value_of(code, element) for code in range(2**element.bits)])
    finite = values[np.isfinite(values)]
    assert element.largest == finite.max()
    assert element.smallest == finite[finite > 0].min()
    assert element.unit_roundoff * 2 == value_of(codes_of(1.0, element) + 1, element) - 1.0


def codes_of(value, element):
    return next(code for code in range(2**element.bits) if value_of(code, element) == value)


@pytest.mark.parametrize("element", SMALL, ids=lambda element: element.name)
def test_distance_is_the_number_of_steps_in_the_sorted_list_of_all_numbers(element):
    values = np.array([value_of(code, element) for code in range(2**element.bits)])
    codes = np.flatnonzero(np.isfinite(values)).astype(element.raw_type)
    places = np.searchsorted(np.unique(values[codes]), values[codes])
    picked = np.random.default_rng(1).integers(0, len(codes), (2, 5000))
    expected = np.abs(places[picked[0]] - places[picked[1]])
    np.testing.assert_array_equal(ulp_distance(codes[picked[0]], codes[picked[1]], element), expected)


def test_distance_of_wide_types_counts_next_numbers():
    for element, kind in ((FP32, np.float32), (FP64, np.float64)):
        one = np.array([1.0, -1.0, 0.0, 2.0], kind)
        other = np.nextafter(np.nextafter(one, kind(9)), kind(9))
        raw = (one.view(element.raw_type), other.view(element.raw_type))
        assert ulp_distance(*raw, element).tolist() == [2, 2, 2, 2]


def test_both_zeros_are_one_number_and_the_ends_do_not_overflow():
    for element in (*SMALL, FP32, FP64):
        zero, minus = (np.array([code], element.raw_type) for code in (0, element.sign_bit))
        assert ulp_distance(zero, minus, element).tolist() == [0]
        last = element.first_non_finite - 1
        ends = np.array([last], element.raw_type), np.array([last | element.sign_bit], element.raw_type)
        assert ulp_distance(*ends, element).tolist() == [2 * last]


def test_distance_leaves_its_arguments_alone():
    raw = tensor(gaussian(1, 4, 8), "bf16").raw
    before = raw.copy()
    ulp_distance(raw, raw[:, ::-1], BF16)
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"])
def test_numbers_of_a_type_are_found_on_its_grid(name):
    values = decode(tensor(gaussian(1, 50, 40), name).raw, elements.element_type(name)).copy()
    raw = values.view(np.uint32)
    assert grid_of(int(np.bitwise_or.reduce(raw, axis=None)), float(np.abs(values).max()), FP32).name == name


def test_what_is_zero_or_too_large_is_on_no_grid():
    assert grid_of(0, 0.0, FP32) is None
    assert grid_of(0x7F000000, 2.0**127, FP32) is BF16
    assert grid_of((1 << 23) - 1, 1.5, FP32) is None


@pytest.mark.parametrize(
    ("name", "element"),
    [("torch.bfloat16", BF16), ("F8_E4M3", FP8_E4M3), ("float8_e5m2", FP8_E5M2), ("half", FP16), ("uint8", FP8_E4M3)],
)
def test_types_go_by_all_their_names(name, element):
    assert elements.element_type(name) is element


def test_an_unknown_type_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'int4' is unknown; known are fp8_e5m2.*fp64"):
        elements.element_type("int4")


def test_types_are_named_as_in_the_tests_table():
    assert set(TORCH_NAMES) == {element.name for element in elements.FROM_COARSE_TO_FINE} - {"fp64"}
