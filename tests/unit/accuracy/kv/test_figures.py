"""Figures of two tensors against numpy in float64 on the whole arrays, and what counts as what."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import ArrayTensor, gaussian, rounded, tensor

from ppd_accuracy.kv.elements import BF16, FP8_E4M3, FP32, decode
from ppd_accuracy.kv.figures import along, of_tensor, token_errors
from ppd_accuracy.kv.rows import compare_rows

NAMES = ("fp64", "fp32", "fp16", "bf16", "fp8_e4m3", "fp8_e5m2")


def pair(shape=(3, 50, 24), scale=1.0):
    one = gaussian(*shape, seed=1, scale=scale)
    return one, one + gaussian(*shape, seed=2, scale=0.05 * scale)


def expected(one, other, axes):
    """By definition, in float64."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    difference = one - other
    length, other_length = np.sqrt((one**2).sum(axes)), np.sqrt((other**2).sum(axes))
    return {
        "mse": (difference**2).mean(axes),
        "relative_l2": np.sqrt((difference**2).sum(axes)) / length,
        "max_abs": np.abs(difference).max(axes),
        "mean_abs": np.abs(difference).mean(axes),
        "cosine": (one * other).sum(axes) / (length * other_length),
    }


def assert_figures(figures, wanted, tolerance):
    for name, values in wanted.items():
        np.testing.assert_allclose(getattr(figures, name), values, rtol=tolerance, err_msg=name)


def values_of(given):
    return np.array(decode(given.raw, given.element), np.float64)


WIDE = ("fp64", "fp32", "bf16")


@pytest.mark.parametrize(
    ("name", "scale"), [*((name, 1.0) for name in NAMES), *((name, scale) for name in WIDE for scale in (1e-30, 1e30))]
)
def test_figures_of_a_tensor_are_those_by_definition(name, scale):
    one, other = (tensor(values, name) for values in pair(scale=scale))
    wanted = expected(values_of(one), values_of(other), (0, 1, 2))
    figures = of_tensor(compare_rows(one, other))
    assert_figures(figures, wanted, 1e-5)
    assert abs(float(figures.cosine) - float(wanted["cosine"])) < 1e-7


@pytest.mark.parametrize(("axis", "axes"), [("head", (1, 2)), ("token", (0, 2))])
def test_figures_along_an_axis_are_those_of_its_parts(axis, axes):
    one, other = (tensor(values, "bf16") for values in pair())
    figures = along(compare_rows(one, other), axis, 16)
    assert_figures(figures, expected(values_of(one), values_of(other), axes), 1e-5)


def test_blocks_hold_block_size_tokens_and_the_last_the_rest():
    one, other = (tensor(values, "bf16") for values in pair())
    figures = along(compare_rows(one, other), "block", 16)
    assert figures.pairs.tolist() == [3 * 16 * 24] * 3 + [3 * 2 * 24]
    for block in range(4):
        places = slice(16 * block, 16 * block + 16)
        wanted = expected(values_of(one)[:, places], values_of(other)[:, places], (0, 1, 2))
        assert float(figures.mse[block]) == pytest.approx(float(wanted["mse"]), rel=1e-5)


def test_ulp_figures_count_steps_of_the_type():
    one = tensor(gaussian(2, 8, 16), "bf16")
    other = ArrayTensor(one.raw.copy(), BF16)
    other.raw[1, 3, :4] += 1
    other.raw[0, 0, 0] += 7
    figures = of_tensor(compare_rows(one, other))
    assert float(figures.max_ulp) == 7
    assert float(figures.mean_ulp) == pytest.approx(11 / 256)


def test_zero_vectors_have_defined_cosines():
    zero, some = np.zeros((1, 1, 8)), gaussian(1, 1, 8)
    for one, other, cosine, relative in ((zero, zero, 1.0, 0.0), (zero, some, 0.0, np.inf), (some, zero, 0.0, 1.0)):
        figures = of_tensor(compare_rows(tensor(one), tensor(other)))
        assert (float(figures.cosine), float(figures.relative_l2)) == (cosine, relative)


def test_opposite_vectors_have_cosine_minus_one():
    one = gaussian(1, 4, 64)
    figures = of_tensor(compare_rows(tensor(one), tensor(-one)))
    assert float(figures.cosine) == pytest.approx(-1.0, abs=1e-6)


def test_a_cosine_next_to_one_keeps_its_digits():
    one = gaussian(1, 40, 64).astype(np.float64)
    other = one + 1e-6 * gaussian(1, 40, 64, seed=5)
    figures = of_tensor(compare_rows(tensor(one, "fp64"), tensor(other, "fp64")))
    assert float(figures.cosine_distance) == pytest.approx(5e-13, rel=0.1)


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", "fp8_e4m3", "fp8_e5m2", "fp64"])
def test_nan_and_infinities_are_counted_by_side_and_left_out(name):
    one, other = tensor(gaussian(2, 4, 8), name), tensor(gaussian(2, 4, 8), name)
    nan = one.element.first_non_finite | (1 if one.element.has_infinity else 0)
    one.raw[0, 1, 2] = nan
    other.raw[1, 2, :3] = nan
    rows = compare_rows(one, other)
    figures = of_tensor(rows)
    assert (int(figures.nan_baseline), int(figures.nan_target), int(figures.pairs)) == (1, 3, 60)
    assert np.argwhere(rows.not_finite).tolist() == [[0, 1], [1, 2]]
    assert float(figures.mse) == 0.0
    assert np.isinf(token_errors(rows)).tolist() == [False, True, True, False]


def test_the_nan_of_e4m3_is_no_infinity():
    one = tensor(gaussian(1, 1, 8), "fp8_e4m3")
    one.raw[0, 0, 0] = 0xFF
    figures = of_tensor(compare_rows(one, one))
    assert (int(figures.nan_target), int(figures.infinite_target)) == (1, 0)


def test_infinities_match_only_with_one_sign():
    one = gaussian(1, 1, 8)
    other = one.copy()
    one[0, 0, :3] = np.inf, -np.inf, np.inf
    other[0, 0, :3] = np.inf, np.inf, 1.0
    rows = compare_rows(tensor(one), tensor(other))
    figures = of_tensor(rows)
    assert (int(figures.infinite_baseline), int(figures.infinite_target), int(figures.infinite_matches)) == (3, 2, 1)
    assert rows.not_finite.tolist() == [[3]]


def test_nothing_finite_gives_no_figures():
    nan = np.full((1, 2, 4), np.nan)
    figures = of_tensor(compare_rows(tensor(nan, "fp64"), tensor(nan, "fp64")))
    assert all(np.isnan(getattr(figures, name)) for name in ("mse", "relative_l2", "max_abs", "mean_abs", "cosine"))


def test_different_types_are_compared_as_fp32():
    values = gaussian(2, 9, 16)
    rows = compare_rows(tensor(values), tensor(values, "bf16"))
    assert rows.element is FP32
    assert_figures(of_tensor(rows), expected(values, rounded(values, "bf16"), (0, 1, 2)), 1e-5)


def test_equal_fp8_tensors_have_their_lengths():
    one = tensor(gaussian(2, 8, 16), "fp8_e4m3")
    rows = compare_rows(one, ArrayTensor(one.raw.copy(), FP8_E4M3))
    np.testing.assert_allclose(rows.squared_target, (values_of(one) ** 2).sum(axis=2), rtol=1e-6)
