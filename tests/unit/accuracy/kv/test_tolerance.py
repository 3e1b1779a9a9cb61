"""Verdicts: what rounding does passes, what it does not do fails, and what is no number never passes."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import ArrayTensor, gaussian, rounded, tensor

from ppd_accuracy.kv.elements import BF16, FP8_E4M3, FP16, FP32
from ppd_accuracy.kv.figures import of_tensor
from ppd_accuracy.kv.rows import compare_rows
from ppd_accuracy.kv.spoiled import spoiled_rows
from ppd_accuracy.kv.tolerance import Tolerance, judge, rows_beyond

SHAPE = (4, 60, 64)


def verdict_of(one, other, *, declared=None, limits=None):
    rows = compare_rows(one, other)
    return judge(rows, of_tensor(rows), one, other, declared=declared, limits=limits or Tolerance())


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("scale", [20.0, 1.0, 0.01])
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "as fp32"])
def test_fp32_against_its_rounding_is_consistent_with_it(name, scale, is_raw):
    values = gaussian(*SHAPE, scale=scale)
    other = tensor(values, name) if is_raw else tensor(rounded(values, name))
    pairs = [(other, tensor(values))]
    if not name.startswith("fp8"):
        pairs.append((tensor(values), other))
    for one, two in pairs:
        verdict = verdict_of(one, two)
        assert verdict.is_pass
        assert verdict.status == "rounding"
        assert f"consistent with {name} rounding" in verdict.reason


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("stored", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "as the baseline"])
def test_a_baseline_that_is_no_fp8_against_its_fp8_rounding_lost_precision(name, stored, is_raw):
    values = gaussian(*SHAPE)
    other = tensor(values, name) if is_raw else tensor(rounded(values, name), stored)
    verdict = verdict_of(tensor(values, stored), other)
    assert verdict.status == "different"
    assert f"precision lost: consistent with {name} rounding" in verdict.reason


def test_fp8_rounding_passes_where_it_is_declared_or_within_given_limits():
    values = gaussian(*SHAPE)
    one, other = tensor(values, "bf16"), tensor(values, "fp8_e4m3")
    assert verdict_of(one, other, declared=FP8_E4M3).is_pass
    assert verdict_of(one, other, limits=Tolerance(cosine=0.99)).is_pass
    assert verdict_of(one, other, limits=Tolerance(max_abs=0.5)).is_pass


def with_outlier(scale, *channels):
    values = gaussian(4, 64, 128)
    values[:, :, list(channels)] = scale
    return values


OUTLIERS = [("fp8_e4m3", 140.0), ("fp8_e5m2", 70.0), ("bf16", 4000.0), ("fp16", 30000.0)]


@pytest.mark.parametrize(("name", "scale"), OUTLIERS)
@pytest.mark.parametrize("is_zero", [False, True], ids=["replaced", "zeroed"])
def test_destroyed_channels_do_not_hide_behind_one_large_channel(name, scale, is_zero):
    one = with_outlier(scale, 7)
    other = gaussian(4, 64, 128, seed=1, scale=0.0 if is_zero else 0.3)
    other[:, :, 7] = scale
    verdict = verdict_of(tensor(one, name), tensor(other, name))
    assert verdict.status == "different"
    assert "256 of 256 rows" in verdict.reason
    assert "a few large elements hide it" in verdict.reason


@pytest.mark.parametrize("as_fp32", [False, True], ids=["raw", "as fp32"])
def test_only_the_rows_with_destroyed_channels_are_counted(as_fp32):
    one = rounded(with_outlier(4000.0, 7), "bf16")
    other = one.copy()
    other[2, 5, 20:40] = 0
    name = "fp32" if as_fp32 else "bf16"
    verdict = verdict_of(tensor(one, name), tensor(other, name))
    assert (verdict.status, "1 of 256 rows, the first is head 2 token 5" in verdict.reason) == ("different", True)


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "bf16", "fp16"])
@pytest.mark.parametrize("scale", [1.0, 20.0, 140.0, 400.0])
@pytest.mark.parametrize("has_tiny", [False, True], ids=["alike", "with values near zero"])
def test_noise_before_rounding_is_healthy_beside_large_channels_and_near_zero(name, scale, has_tiny):
    values = with_outlier(scale, 7, 100)
    if has_tiny:
        values[:, :, 20:40] *= 1e-3
    unit = 2.0**-13 if name == "fp16" else 2.0**-10
    noises = (values * gaussian(4, 64, 128, seed=2), gaussian(4, 64, 128, seed=3))
    for noise in noises:
        verdict = verdict_of(tensor(values, name), tensor(values + unit * noise, name))
        assert verdict.is_pass, verdict.reason


def test_noise_that_is_large_for_most_elements_but_short_of_the_tolerance_is_read_and_passes():
    """Every row is read again, since its elements are many representable numbers away, and none is spoiled."""
    values = with_outlier(20.0, 7)
    one, other = tensor(values, "bf16"), tensor(values + 2.0**-6 * gaussian(4, 64, 128, seed=5), "bf16")
    rows = compare_rows(one, other)
    assert rows.total_ulp.min() > 9 * 32
    assert not spoiled_rows(rows, np.ones(rows.pairs.shape, bool), BF16, one, other).any()


def test_fp64_against_fp32_is_consistent_with_fp32_rounding():
    values = np.random.default_rng(0).standard_normal(SHAPE)
    assert verdict_of(tensor(values, "fp64"), tensor(values, "fp32")).reason.startswith("consistent with fp32 rounding")


def test_equal_tensors_are_identical_and_so_are_both_zeros():
    one = tensor(gaussian(*SHAPE), "bf16")
    assert verdict_of(one, ArrayTensor(one.raw.copy(), BF16)).status == "identical"
    assert verdict_of(tensor(np.zeros((1, 2, 4))), tensor(-np.zeros((1, 2, 4)))).status == "identical"


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp8_e4m3"])
def test_one_step_everywhere_is_rounding_of_the_type(name):
    one = tensor(gaussian(*SHAPE), name)
    flips = np.random.default_rng(3).integers(0, 2, SHAPE).astype(one.raw.dtype)
    verdict = verdict_of(one, ArrayTensor(one.raw ^ flips, one.element))
    assert (verdict.status, verdict.rounding) == ("rounding", one.element)


def test_more_steps_on_small_numbers_are_within_tolerance():
    one = tensor(gaussian(*SHAPE), "bf16")
    noise = gaussian(*SHAPE, seed=4, scale=2.0**-10)
    verdict = verdict_of(one, tensor(rounded(gaussian(*SHAPE), "bf16") + noise, "bf16"))
    assert (verdict.status, verdict.is_pass) == ("tolerance", True)


def test_a_single_upper_mantissa_bit_is_different():
    one = tensor(gaussian(*SHAPE), "bf16")
    other = ArrayTensor(one.raw.copy(), BF16)
    place = np.unravel_index(np.argmax(np.abs(gaussian(*SHAPE))), SHAPE)
    other.raw[place] ^= 1 << 5
    verdict = verdict_of(one, other)
    assert verdict.status == "different"
    assert f"1 of {4 * 60} rows, the first is head {place[0]} token {place[1]}" in verdict.reason


def test_a_bad_row_does_not_drown_in_a_long_tensor():
    values = gaussian(1, 5000, 64)
    other = values.copy()
    other[0, 4321] *= 1.05
    verdict = verdict_of(tensor(values, "bf16"), tensor(other, "bf16"))
    assert "1 of 5000 rows, the first is head 0 token 4321" in verdict.reason


@pytest.mark.parametrize("place", ["baseline", "target", "both"])
@pytest.mark.parametrize(
    "limits", [Tolerance(), Tolerance(max_abs=np.inf, cosine=-1.0)], ids=["tolerance", "any limits"]
)
def test_a_nan_never_passes(place, limits):
    one, other = gaussian(*SHAPE), gaussian(*SHAPE)
    for side, values in (("baseline", one), ("target", other)):
        if place in (side, "both"):
            values[1, 2, 3] = np.nan
    verdict = verdict_of(tensor(one), tensor(other), limits=limits)
    assert (verdict.status, verdict.is_pass) == ("not_finite", False)


def test_an_infinity_on_one_side_never_passes_and_on_both_does():
    one, other = gaussian(*SHAPE), gaussian(*SHAPE)
    one[0, 0, 0] = np.inf
    assert verdict_of(tensor(one, "bf16"), tensor(other, "bf16")).status == "not_finite"
    other[0, 0, 0] = -np.inf
    assert verdict_of(tensor(one, "bf16"), tensor(other, "bf16")).status == "not_finite"
    other[0, 0, 0] = np.inf
    assert verdict_of(tensor(one, "bf16"), tensor(other, "bf16")).status == "identical"


@pytest.mark.parametrize(
    ("limits", "is_pass"),
    [
        (Tolerance(max_abs=0.25), True),
        (Tolerance(max_abs=0.05), False),
        (Tolerance(cosine=0.9999), True),
        (Tolerance(cosine=0.9999999), False),
        (Tolerance(max_abs=0.25, cosine=0.9999999), False),
    ],
)
def test_limits_that_are_given_replace_the_tolerance(limits, is_pass):
    values = gaussian(*SHAPE, scale=20.0)
    assert 0.06 < np.abs(values - rounded(values, "bf16")).max() < 0.25
    assert verdict_of(tensor(values), tensor(rounded(values, "bf16")), limits=limits).is_pass is is_pass


def test_limits_let_pass_what_rounding_does_not_explain():
    values = gaussian(*SHAPE)
    other = tensor(values * 1.01, "bf16")
    assert not verdict_of(tensor(values, "bf16"), other).is_pass
    assert verdict_of(tensor(values, "bf16"), other, limits=Tolerance(max_abs=0.1)).is_pass


def test_a_bf16_cache_that_went_through_fp8_lost_precision():
    values = rounded(gaussian(*SHAPE), "bf16")
    lossy = rounded(values, "fp8_e4m3")
    for one, other in ((tensor(values, "bf16"), tensor(lossy, "bf16")), (tensor(values), tensor(lossy))):
        verdict = verdict_of(one, other)
        assert verdict.status == "different"
        assert "precision lost: consistent with fp8_e4m3 rounding" in verdict.reason


def test_a_declared_type_is_not_coarsened():
    values = gaussian(*SHAPE)
    other = tensor(rounded(values, "bf16"))
    verdict = verdict_of(tensor(values), other, declared=FP32)
    assert (verdict.status, verdict.element, verdict.rounding) == ("different", FP32, BF16)
    assert verdict_of(tensor(values), other, declared=BF16).is_pass
    assert not verdict_of(tensor(values), tensor(rounded(values, "fp8_e4m3")), declared=BF16).is_pass


def test_a_few_round_numbers_are_no_evidence_of_a_coarse_type():
    ones = np.ones((2, 8, 64))
    verdict = verdict_of(tensor(ones), tensor(ones + 0.1))
    assert (verdict.status, verdict.element) == ("different", FP32)
    assert verdict_of(tensor(ones * 16), tensor(ones * 18)).status == "different"


def test_fp32_differences_that_are_on_no_grid_are_judged_as_fp32():
    values = gaussian(*SHAPE)
    assert not verdict_of(tensor(values), tensor(values + 1e-4)).is_pass
    assert verdict_of(tensor(values), tensor(np.nextafter(values, np.float32(9)))).status == "rounding"


def test_clipped_numbers_are_not_rounding():
    values = gaussian(*SHAPE, scale=200.0)
    assert np.abs(values).max() > 500
    assert not verdict_of(tensor(values), tensor(values, "fp8_e4m3")).is_pass


@pytest.mark.parametrize(("element", "unit"), [(BF16, 2**-8), (FP16, 2**-11), (FP8_E4M3, 2**-4)])
def test_a_row_may_be_off_by_two_roundings_of_its_length(element, unit):
    one = np.full((1, 1, 64), 1.0)
    for factor, is_beyond in ((1.9, False), (2.1, True)):
        rows = compare_rows(tensor(one, "fp64"), tensor(one - factor * unit, "fp64"))
        assert rows_beyond(rows, element).tolist() == [[is_beyond]]


def test_numbers_near_zero_may_be_off_by_their_step():
    values = gaussian(*SHAPE, scale=1e-9)
    assert verdict_of(tensor(values), tensor(np.zeros(SHAPE)), declared=FP16).is_pass
    assert not verdict_of(tensor(values), tensor(np.zeros(SHAPE)), declared=BF16).is_pass
