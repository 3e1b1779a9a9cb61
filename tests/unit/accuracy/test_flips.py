"""A first difference is a tie or a fault by what a healthy engine does to itself."""

import math

import pytest

from ppd_proxy.accuracy.flips import Floor, first_difference, flip_of, floor_of

FLOOR = floor_of([0.01, -0.03, 0.02], [0.01, 0.02], answers=1, flips=0)


def test_the_first_difference_is_a_token_that_differs_or_is_missing():
    assert first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([], [1]) == 0


@pytest.mark.parametrize(("gap", "judgement"), [(0.01, "tie"), (0.016, "real"), (1.5, "real")])
def test_a_difference_is_real_where_it_moved_more_than_any_healthy_token(gap, judgement):
    flip = flip_of(0, [1], [2], [{"1": -0.5, "2": -0.5 - gap}], [{"2": -0.5, "1": -0.5 - gap}])
    assert flip.shift == pytest.approx(2 * gap)
    assert FLOOR.judge(flip) == judgement


def test_a_token_that_an_engine_does_not_list_gives_a_bound():
    flip = flip_of(0, [1], [9], [{"1": -0.1, "2": -3.0}], [{"9": -0.2, "1": -0.3}])
    assert (flip.baseline_margin, flip.target_margin, flip.is_bound) == (
        pytest.approx(2.9), pytest.approx(0.1), True,
    )  # fmt: skip
    assert FLOOR.judge(flip) == "real"


def test_a_bound_within_the_noise_is_not_called_a_tie():
    flip = flip_of(0, [1], [9], [{"1": -0.1, "2": -0.11}], [{"9": -0.2, "1": -0.201}])
    assert FLOOR.judge(flip) == "unclassified"


def test_nothing_is_judged_without_a_floor_or_by_one_that_has_nan():
    flip = flip_of(0, [1], [2], [{"1": 0.0, "2": -9.0}], [{"2": 0.0, "1": -9.0}])
    assert Floor().judge(flip) == "unclassified"
    broken = floor_of([0.01, math.nan], [0.01], answers=1, flips=0)
    assert broken.broken == 1
    assert broken.judge(flip) == "unclassified"


def test_the_chance_is_that_of_a_rank():
    flip = flip_of(0, [1], [2], [{"1": -0.5, "2": -0.509}], [{"2": -0.5, "1": -0.509}])
    assert FLOOR.chance(flip) == pytest.approx((1 + 2) / (1 + 3))
