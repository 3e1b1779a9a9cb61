"""Rows that one large element hides."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import gaussian, rounded, tensor

from ppd_accuracy.kv.elements import BF16, FP8_E4M3, FP32
from ppd_accuracy.kv.rows import compare_rows
from ppd_accuracy.kv.spoiled import far_share, spoiled_rows

SHAPE = (2, 8, 64)


def spoiled(one, other, candidates=None):
    sides = tensor(one, "bf16"), tensor(other, "bf16")
    every = np.ones(SHAPE[:2], np.bool_) if candidates is None else candidates
    return spoiled_rows(compare_rows(*sides), every, BF16, *sides)


def with_a_large_channel():
    values = gaussian(*SHAPE)
    values[:, :, 0] = 1000.0
    return values


def test_ordinary_elements_that_are_something_else_spoil_a_row_beside_a_large_one():
    one = with_a_large_channel()
    other = one.copy()
    other[1, 3, 1:] = gaussian(63, seed=9)
    assert np.argwhere(spoiled(one, other)).tolist() == [[1, 3]]


def test_rounding_spoils_nothing():
    one = with_a_large_channel()
    assert not spoiled(one, rounded(one * (1 + 2.0**-9), "bf16")).any()


@pytest.mark.parametrize(("changed", "is_spoiled"), [(4, False), (5, True)])
def test_one_in_sixteen_elements_may_be_far_off(changed, is_spoiled):
    one = with_a_large_channel()
    other = one.copy()
    other[0, 0, 1 : 1 + changed] = -5 * np.sign(one[0, 0, 1 : 1 + changed])
    assert spoiled(one, other)[0, 0] == is_spoiled


def test_only_candidates_are_looked_at():
    one = with_a_large_channel()
    assert not spoiled(one, -one, np.zeros(SHAPE[:2], np.bool_)).any()


def test_what_is_far_off_grows_with_the_types_steps():
    assert far_share(FP32) == far_share(BF16) == 0.25
    assert far_share(FP8_E4M3) == 4 * FP8_E4M3.unit_roundoff
