"""Everything about two tensors in one value."""

import numpy as np
import pytest
from tests.support.connector.kv_tensors import gaussian, tensor

from ppd_accuracy.kv.comparison import CacheRules, binned, compare_tensors

ONE = gaussian(2, 40, 16)


def compared(change=lambda values: None, **rules):
    other = ONE.copy()
    change(other)
    return compare_tensors(tensor(ONE), tensor(other), CacheRules(**rules))


def test_equal_tensors_pass_and_nothing_is_found():
    same = compared()
    assert same.verdict.is_pass
    assert same.findings == ()
    assert not same.deviations.any()


def test_the_worst_place_is_named_along_each_axis():
    def spoil(values):
        values[1, 20] += 1.0

    different = compared(spoil)
    assert not different.verdict.is_pass
    assert (different.worst["head"], different.worst["token"]) == (1, 20)
    assert np.flatnonzero(different.deviations).tolist() == [20]


def test_what_is_not_finite_is_worse_than_any_difference():
    def spoil(values):
        values[0, 3] += 100.0
        values[1, 7, 0] = np.nan

    different = compared(spoil)
    assert (different.worst["head"], different.worst["token"]) == (1, 7)
    assert np.isinf(different.deviations[7])


def test_figures_along_an_axis_are_kept_only_where_asked_for():
    assert not compared().details
    assert list(compared(details=("head",)).details) == ["head"]


def test_tensors_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        compare_tensors(tensor(ONE), tensor(ONE[:1]), CacheRules())


def test_bins_have_their_largest_error_and_lose_no_token():
    errors = np.arange(300.0)
    starts, largest = binned(errors, 7)
    assert starts[0] == 0
    assert list(largest) == [float(end - 1) for end in [*starts[1:], 300]]
    assert binned(errors[:3])[1] == (0.0, 1.0, 2.0)
