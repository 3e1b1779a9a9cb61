import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_acc.page.scales import Scale, apart, number, rounded_up

SPANS = st.tuples(st.floats(1e-6, 1e6), st.floats(1.01, 1e6)).map(lambda each: (each[0], each[0] * each[1]))


@pytest.mark.parametrize(
    ("scale", "value", "place"),
    [
        (Scale(low=0, high=10, start=0, end=100), 2.5, 25),
        (Scale(low=0, high=10, start=100, end=0), 2.5, 75),
        (Scale(low=0, high=10, start=0, end=100), 12, 100),
        (Scale(low=0, high=10, start=0, end=100), -3, 0),
        (Scale(low=1, high=100, start=0, end=100, kind="log"), 10, 50),
        (Scale(low=1, high=100, start=0, end=100, kind="log"), 0, 0),
        (Scale(low=0, high=math.sinh(2), start=0, end=100, kind="knee"), math.sinh(1), 50),
        (Scale(low=3, high=3, start=0, end=100), 3, 50),
    ],
)
def test_a_value_has_its_place_and_stays_within_the_picture(scale, value, place):
    assert scale(value) == pytest.approx(place)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(low=0, high=10, start=0, end=1), [0, 2, 4, 6, 8, 10]),
        (Scale(low=0, high=0.3, start=0, end=1), [0, 0.1, 0.2, 0.3]),
        (Scale(low=0.6, high=1, start=0, end=1), [0.6, 0.7, 0.8, 0.9, 1.0]),
        (Scale(low=1e-4, high=1, start=0, end=1, kind="log"), [1e-4, 1e-3, 1e-2, 0.1, 1]),
        (Scale(low=3, high=60, start=0, end=1, kind="log"), [5, 10, 20, 50]),
        (Scale(low=0, high=5, start=0, end=400, kind="knee", knee=0.01), [0, 0.01, 0.1, 1]),
    ],
)
def test_ticks_are_round_numbers(scale, ticks):
    assert scale.ticks() == pytest.approx(ticks)


@given(SPANS, st.sampled_from(["linear", "log"]))
def test_there_are_few_ticks_in_order_and_within_the_axis(span, kind):
    low, high = span
    ticks = Scale(low=low, high=high, start=0, end=500, kind=kind).ticks()
    assert len(ticks) <= 12
    assert ticks == sorted(set(ticks))
    assert all(low * 0.99 <= each <= high * 1.01 for each in ticks)


@given(st.floats(1e-9, 1e9))
def test_rounding_up_never_goes_down_nor_far(value):
    assert value * 0.999 <= rounded_up(value) <= value * 1.6


def test_rounding_up_what_is_not_above_0_gives_an_axis_all_the_same():
    assert rounded_up(0.0) == rounded_up(math.nan) == rounded_up(-1.0) == 1.0


@given(st.lists(st.floats(0, 200), max_size=10))
def test_labels_are_moved_apart_keep_their_order_and_stay_inside(places):
    moved = apart(places, 14, 0, 200)
    ordered = sorted(moved)
    assert all(right - left >= 13.999 for left, right in itertools.pairwise(ordered))
    assert all(-1e-9 <= each <= 200 + 1e-9 for each in moved)
    for (one, first), (other, second) in itertools.combinations(zip(places, moved, strict=True), 2):
        assert one == other or (one < other) == (first < second)


def test_labels_that_are_apart_already_stay():
    assert apart([10, 100, 50], 14, 0, 200) == [10, 100, 50]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.05, "0.05"), (0.123456, "0.123"), (12, "12"), (1500, "1,500"), (999.6, "1000"), (462.4, "462"),
     (1e-5, "1e\u22125"), (2.8e-6, "2.8e\u22126"), (-3.5, "\u22123.5")],
)  # fmt: skip
def test_numbers_are_short(value, shown):
    assert number(value) == shown
