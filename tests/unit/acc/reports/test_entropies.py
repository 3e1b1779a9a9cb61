"""How sure an answer's tokens are, with bounds for what is not listed."""

import math

import pytest
from tests.support.acc.reports import parted, sample, side

from ppd_acc.reports.entropies import (
    around,
    compare,
    compare_spreads,
    entropy_of,
    figures,
    series_of,
    shared_positions,
    side_series,
)

EVEN = {"a": math.log(0.5), "b": math.log(0.5)}
SURE = {"a": math.log(0.999), "b": math.log(0.0005)}


def test_a_list_that_is_whole_has_one_entropy():
    found = entropy_of(EVEN, 1000, is_ranked=True)
    assert found.low == pytest.approx(math.log(2))
    assert found.high == pytest.approx(math.log(2), abs=1e-6)


def test_what_is_not_listed_widens_the_bounds():
    found = entropy_of({"a": math.log(0.5)}, 1000, is_ranked=False)
    assert found.low < found.high
    assert found.rest == pytest.approx(0.5)
    assert entropy_of({}, 1000, is_ranked=True) is None


def test_logprobs_that_are_no_numbers_are_dropped_and_counted():
    series = series_of([{"a": -0.5, "b": math.inf}, {"a": math.nan}], 1000)
    assert (series.dropped, series.positions[1]) == (2, None)


def test_chosen_tokens_alone_are_all_that_is_listed():
    series = side_series(side([1, 2], logprobs=[-0.1, None]), 1000)
    assert (len(series.known), series.dropped) == (1, 1)


def test_positions_count_up_to_and_with_the_first_difference():
    assert shared_positions(sample("a")) == 5
    assert shared_positions(parted("b", "real", 3, 5)) == 4


def test_an_engine_that_is_less_sure_has_more_entropy():
    change = compare([(series_of([SURE] * 3, 1000), series_of([EVEN] * 3, 1000))] * 2, 0.95)
    assert (change.unit, change.positions) == ("samples", 6)
    assert change.low <= change.change.mean <= change.high
    assert change.change.mean > 0.5
    assert compare([(series_of([{}], 1000), series_of([EVEN], 1000))], 0.95) is None


def test_figures_are_of_all_positions_together():
    told = figures([series_of([EVEN, {}], 1000), series_of([SURE], 1000)])
    assert told["count"] == 2
    assert told["bucket"]["min"] < told["bucket"]["max"]
    assert figures([])["bucket"]["mean"] is None


def test_spreads_of_another_shape_are_none():
    kept = {"spread": {"positions": 4, "entropy_change": 0.1, "entropy_low": 0.0, "entropy_high": 0.2}}
    assert compare_spreads([sample("a", metadata=kept), sample("b", metadata=kept)], 0.95).positions == 8
    assert compare_spreads([sample("a", metadata={"spread": "wide"})], 0.95) is None
    assert compare_spreads([sample("a")], 0.95) is None


def test_the_neighbourhood_of_a_place_leaves_out_what_is_not_known():
    told = around(series_of([EVEN, {}, SURE], 1000), 1, 1)
    assert told["bucket"] is None
    assert told["context_max"] == pytest.approx(math.log(2), abs=0.01)
