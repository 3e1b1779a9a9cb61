"""The CacheBlend view: which tokens are chosen, what they cover, what ratio follows, worked by hand."""

import itertools

import numpy as np
import pytest

from ppd_accuracy.kv.blend import blend, high_deviation
from ppd_accuracy.kv.blend_advice import recommend
from ppd_accuracy.kv.timings import Timings, read_timings

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


def concentrated(tokens=2000):
    """A tenth of the tokens has nearly everything, in every layer the same."""
    deviations = np.ones(tokens)
    deviations[: tokens // 10] = 1000
    return dict.fromkeys(range(3), deviations)


def spread(tokens=2000):
    return {layer: np.ones(tokens) for layer in range(3)}


SLOW_RECOMPUTE = Timings(load_s=0.1, selection_s=0.05, recompute_s=0.8, generation_s=0.05)


def test_good_coverage_keeps_the_ratio():
    advice = recommend(blend(concentrated()))
    assert advice.ratio == 0.16
    assert advice.reasons[-1] == "keep 0.16"


def test_low_coverage_raises_the_ratio():
    advice = recommend(blend(spread(), suffix_len=5))
    assert advice.ratio == 0.25
    assert "coverage is under 50%: quality will drop" in advice.reasons


def test_a_measured_drop_raises_the_ratio_and_a_small_one_does_not():
    assert recommend(blend(concentrated()), quality_drop=0.05).ratio == 0.25
    assert recommend(blend(concentrated()), quality_drop=0.01).ratio == 0.16
    assert recommend(blend(concentrated()), quality_drop=-0.1).ratio == 0.16


def test_a_dominant_recompute_lowers_the_ratio_where_coverage_allows_it():
    assert recommend(blend(concentrated()), timings=SLOW_RECOMPUTE).ratio == 0.10
    halved = {layer: np.where(np.arange(2000) < 300, 10.0, 1.0) for layer in range(3)}
    advice = recommend(blend(halved, ratio=0.3), timings=SLOW_RECOMPUTE)
    assert advice.ratio == 0.3
    assert any("0.1 would cover only" in reason for reason in advice.reasons)


def test_an_improvement_over_full_prefill_keeps_the_ratio():
    faster = Timings(load_s=0.1, selection_s=0.05, recompute_s=0.8, generation_s=0.05, full_prefill_s=3.0)
    assert recommend(blend(concentrated()), timings=faster).ratio == 0.16
    slower = Timings(load_s=0.1, selection_s=0.05, recompute_s=0.8, generation_s=0.05, full_prefill_s=1.05)
    assert recommend(blend(concentrated()), timings=slower).ratio == 0.10


def test_slow_loading_is_not_blamed_on_the_ratio():
    advice = recommend(
        blend(concentrated()), timings=Timings(load_s=0.9, selection_s=0.01, recompute_s=0.05, generation_s=0.04)
    )
    assert advice.ratio == 0.16
    assert any("GPU memory" in reason for reason in advice.reasons)


def test_quality_goes_before_speed():
    advice = recommend(blend(spread(), suffix_len=1), timings=SLOW_RECOMPUTE)
    assert advice.ratio == 0.25
    assert any("full prefill may be the answer" in reason for reason in advice.reasons)


def test_a_better_check_layer_is_named():
    odd = np.zeros(2000)
    odd[1000:] = 50
    layers = {**concentrated(), 1: odd}
    advice = recommend(blend(layers, suffix_len=3))
    assert any(reason.startswith("check layer 0 chooses better") for reason in advice.reasons)


def test_a_short_prompt_is_told_to_gain_little():
    advice = recommend(blend(concentrated(400)), timings=SLOW_RECOMPUTE)
    assert any("400 tokens; under 1000" in reason for reason in advice.reasons)


def test_a_high_ratio_is_not_lowered_by_a_quality_drop():
    advice = recommend(blend(spread(), ratio=0.4))
    assert advice.ratio == 0.4
    assert any("look at check layers and suffix length" in reason for reason in advice.reasons)


def test_timings_are_read_from_moments_and_from_durations():
    moments = read_timings({"t1": 10, "t2": 10.5, "t3": 10.75, "t4": 12, "t5": 12.25, "full_prefill": 4})
    durations = read_timings({"kv_load": 0.5, "selection": 0.25, "partial_recompute": 1.25, "generation": 0.25})
    assert (moments.load_s, moments.selection_s, moments.recompute_s, moments.generation_s) == (0.5, 0.25, 1.25, 0.25)
    assert (moments.total_s, moments.full_prefill_s) == (2.25, 4.0)
    assert (durations.parts, durations.full_prefill_s) == (moments.parts, None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([1, 2], "list"),
        ({"t1": 0, "t2": 1}, "t3, t4, t5 missing"),
        ({"t1": 0, "t2": 1, "t3": 0.5, "t4": 2, "t5": 3}, "at or after"),
        ({"kv_load": 1, "selection": 1, "partial_recompute": 1}, "generation is missing"),
        ({"kv_load": -1, "selection": 1, "partial_recompute": 1, "generation": 1}, "kv_load is -1"),
        ({"kv_load": "1", "selection": 1, "partial_recompute": 1, "generation": 1}, "number of seconds"),
        ({"kv_load": float("nan"), "selection": 1, "partial_recompute": 1, "generation": 1}, "number of seconds"),
    ],
)
def test_timings_that_are_none_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        read_timings(given)


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
