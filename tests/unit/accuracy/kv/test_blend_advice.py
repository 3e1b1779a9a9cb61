"""Which recompute ratio follows from what is measured."""

import numpy as np

from ppd_accuracy.kv.blend import blend
from ppd_accuracy.kv.blend_advice import recommend
from ppd_accuracy.kv.timings import Timings


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
