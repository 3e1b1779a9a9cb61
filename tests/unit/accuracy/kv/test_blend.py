"""The CacheBlend view: which tokens are chosen, what they cover, what ratio follows, worked by hand."""

import itertools

import numpy as np
import pytest

from ppd_accuracy.kv.blend import blend, high_deviation
from ppd_accuracy.kv.blend_advice import recommend

PEAKED = np.array([0.0, 1, 90, 2, 3, 0, 1, 0, 0, 3, 50, 60])
"""Ten tokens outside a suffix of two."""


def test_the_highest_deviations_outside_the_suffix_are_chosen_and_the_suffix_always():
    view = blend({1: PEAKED}, ratio=0.2, suffix_len=2)
    (chosen,) = view.selections
    assert chosen.tokens == (2, 4, 10, 11)
    assert (chosen.high_deviation_tokens, chosen.share) == (2, 4 / 12)
    assert chosen.coverage == pytest.approx(93 / 100)
    assert (chosen.lowest_chosen, chosen.highest_chosen) == (3.0, 90.0)


def test_the_number_of_chosen_tokens_is_rounded_down():
    assert high_deviation(np.arange(10.0), 0.16).sum() == 1
    assert high_deviation(np.arange(100.0), 0.16).sum() == 16
    assert high_deviation(np.arange(100.0), 0.29).sum() == 29
    assert not high_deviation(np.arange(5.0), 0.0).any()
    assert high_deviation(np.arange(5.0), 1.0).all()


def test_of_equal_deviations_the_first_are_chosen():
    assert np.flatnonzero(high_deviation(np.ones(10), 0.3)).tolist() == [0, 1, 2]


def test_the_curve_rises_from_nothing_to_everything():
    view = blend({1: PEAKED}, suffix_len=2)
    (curve,) = view.curve
    assert (curve[0], curve[-1]) == (0.0, 1.0)
    assert list(curve) == sorted(curve)
    assert curve[view.ratios.index(0.1)] == pytest.approx(0.9)
    assert curve[view.ratios.index(0.25)] == pytest.approx(0.93)


def test_coverage_elsewhere_is_the_mean_over_the_other_layers():
    layers = {0: np.array([1.0, 0, 3, 0]), 1: np.array([0.0, 0, 9, 1]), 2: np.array([4.0, 4, 2, 0])}
    (chosen,) = blend(layers, ratio=0.25).selections
    assert chosen.tokens == (2,)
    assert chosen.coverage_elsewhere == pytest.approx((3 / 4 + 2 / 10) / 2)


def test_overlap_is_the_jaccard_index():
    layers = {0: np.array([9.0, 8, 0, 0]), 1: np.array([9.0, 0, 8, 0]), 2: np.array([0.0, 0, 9, 8])}
    view = blend(layers, ratio=0.5)
    np.testing.assert_allclose(view.overlaps, [[1, 1 / 3, 0], [1 / 3, 1, 1 / 3], [0, 1 / 3, 1]])


def test_several_check_layers_choose_each_for_itself():
    layers = {0: np.array([9.0, 0, 0, 0]), 1: np.array([0.0, 9, 0, 0])}
    view = blend(layers, ratio=0.25, check_layers=[0, 1])
    assert [selection.tokens for selection in view.selections] == [(0,), (1,)]
    assert len(view.curve) == 2


def test_the_histogram_counts_every_token_outside_the_suffix():
    counts, edges = blend({1: PEAKED}, suffix_len=2).histogram
    assert (sum(counts), len(counts), len(edges)) == (10, 50, 51)
    assert (edges[0], edges[-1]) == (0.0, 90.0)


def test_tokens_that_are_not_finite_are_chosen_first():
    view = blend({1: np.array([1.0, np.inf, 5, 2])}, ratio=0.25)
    assert view.selections[0].tokens == (1,)
    assert view.selections[0].coverage == 1.0
    assert np.isfinite(view.histogram[1]).all()


def test_equal_caches_are_covered_by_nothing():
    view = blend({1: np.zeros(20), 2: np.zeros(20)})
    assert view.selections[0].coverage == 1.0
    assert recommend(view).ratio == 0.16


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"check_layers": [7]}, "check layer 7 has no V"),
        ({"suffix_len": 12}, "from 0 to 11"),
        ({"suffix_len": -1}, "from 0 to 11"),
    ],
)
def test_what_is_not_there_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        blend({1: PEAKED}, **arguments)


def test_layers_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\[12, 13\] tokens"):
        blend({1: PEAKED, 2: np.zeros(13)})


@pytest.mark.parametrize(
    "deviations",
    [
        1 + np.arange(10) * 2.3e-16,
        np.full(10, 1e308),
        np.full(10, np.finfo(np.float64).max),
        np.array([0.0, 5e-324, 0, 0, 0, 0, 0, 0, 0, 0]),
        np.array([0.0, 1e308, 1.7e308, 0, 0, 0, 0, 0, 0, 0]),
    ],
    ids=["hardly apart", "huge", "largest", "smallest", "far apart"],
)
def test_deviations_that_are_hardly_apart_or_huge_have_a_histogram_and_a_coverage(deviations):
    view = blend({1: deviations, 2: np.arange(10.0)}, ratio=0.5)
    counts, edges = view.histogram
    assert (sum(counts), len(edges)) == (10, len(counts) + 1)
    assert all(low < high for low, high in itertools.pairwise(edges))
    assert np.isfinite(edges).all()
    assert 0.4 < view.selections[0].coverage <= 1.0
    assert view.curve[0][-1] == 1.0
