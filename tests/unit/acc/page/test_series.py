import itertools
import math

import numpy as np
import pytest
from tests.support.acc.page_reports import report, sample

from ppd_acc.data.report import Flip, Noise, Side
from ppd_acc.page import series


def with_lengths(*pairs, reasons=("stop", "stop")):
    return [
        sample(f"s{number}", baseline=Side(tokens=[1] * one, finish_reason=reasons[0]),
               target=Side(tokens=[1] * other, finish_reason=reasons[1]))
        for number, (one, other) in enumerate(pairs)
    ]  # fmt: skip


def test_shares_leave_errors_out_and_hold_ties_apart():
    samples = [sample("a", "real"), sample("b", "tie"), sample("c", "tie"), *(sample(f"e{n}") for n in range(7))]
    differ, real, floor = series.shares(report([*samples, sample("x", "error")]), 0.95)
    assert (differ.hits, differ.total) == (3, 10)
    assert (real.name, real.hits, real.total) == ("Real differences", 1, 10)
    assert (floor.hits, floor.total, floor.value) == (1, 20, 0.05)
    assert differ.interval == pytest.approx((0.1078, 0.6032), abs=1e-4)  # Wilson (1927), by hand: 3 of 10


def test_an_unclassified_difference_is_not_called_real():
    samples = [sample("a", "unclassified"), sample("b")]
    assert series.shares(report(samples), 0.95)[1].name == "Real or unclassified differences"


def test_a_share_of_nothing_is_unknown():
    differ, _, floor = series.shares(report([], noise=Noise()), 0.95)
    assert differ.value is None
    assert floor.value is None


def test_the_curve_of_real_differences_watches_a_tied_answer_up_to_its_tie():
    samples = [sample("a", "tie", at=2), sample("b", "real", at=4), sample("c", tokens=6), sample("d", tokens=6)]
    every = series.survival(samples, 0.95, is_tie_counted=True)
    real = series.survival(samples, 0.95, is_tie_counted=False)
    assert [step.position for step in every.steps] == [2, 4]
    assert [step.survival for step in every.steps] == pytest.approx([0.75, 0.5])
    assert [(step.position, step.survival) for step in real.steps] == [(4, pytest.approx(2 / 3))]  # 1 of 3 left


def test_the_chance_to_part_is_of_the_tokens_compared_there():
    samples = [sample("a", "real", at=0), sample("b", "tie", at=5), sample("c", tokens=10), sample("d", tokens=10)]
    first, *rest = series.hazard_bins(samples, 0.95)
    assert (first.low, first.high) == (0, 0)
    assert (first.divergent.hits, first.divergent.total) == (1, 4)
    # The tied answer has 5 tokens left and the two equal ones 9 each; one of the 23 is the first that differs.
    assert sum(each.divergent.total for each in rest) == 5 + 9 + 9
    assert sum(each.divergent.hits for each in rest) == 1
    assert sum(each.real.hits for each in rest) == 0


def test_deltas_are_of_the_tokens_before_the_first_difference():
    told = sample(
        "a", "real", at=2, baseline=Side(tokens=[1, 2, 3], logprobs=[-1.0, -2.0, -9.0]),
        target=Side(tokens=[1, 2, 4], logprobs=[-1.5, -2.0, -0.1]),
    )  # fmt: skip
    assert series.token_deltas(told).tolist() == [0.5, 0.0]


def test_a_logprob_that_is_no_number_is_counted_and_not_drawn():
    told = sample(
        "a", tokens=3, baseline=Side(tokens=[1, 2, 3], logprobs=[-1.0, None, -math.inf]),
        target=Side(tokens=[1, 2, 3], logprobs=[-1.25, -2.0, -math.inf]),
    )  # fmt: skip
    found = series.deltas_by_position([told])
    assert found.not_numbers == 2
    assert found.cloud.y.tolist() == [0.25]
    assert found.bands[0].largest == 0.25


def test_many_points_are_thinned_to_the_largest_and_an_even_choice():
    samples = [sample(f"s{number}", tokens=50) for number in range(100)]
    every = np.concatenate([series.token_deltas(each) for each in samples])
    found = series.deltas_by_position(samples, most=400)
    assert (len(found.cloud.y), found.cloud.total) == (400, 5000)
    assert set(np.sort(every)[-200:]) <= set(found.cloud.y.tolist())
    assert np.median(found.cloud.x) == pytest.approx(24.5, abs=5)


def test_bands_are_quantiles_of_all_tokens_there():
    samples = [sample(f"s{number}", tokens=4) for number in range(9)]
    found = series.deltas_by_position(samples)
    assert [(band.start, band.stop, band.count) for band in found.bands] == [(n, n + 1, 9) for n in range(4)]
    second = [series.token_deltas(each)[1] for each in samples]
    assert found.bands[1].median == pytest.approx(np.median(second))
    assert found.bands[1].p99 == pytest.approx(np.quantile(second, 0.99))


def test_no_logprobs_give_no_points():
    found = series.deltas_by_position([sample("a", baseline=Side(tokens=[1]), target=Side(tokens=[1]))])
    assert found.cloud.total == 0
    assert found.bands == ()


def test_prompts_are_binned_evenly_and_one_length_is_never_in_two_bins():
    samples = [sample(f"s{number}", "real" if number < 5 else "equal", prompt_tokens=7) for number in range(50)]
    samples += [sample(f"t{number}", prompt_tokens=100 + number) for number in range(50)]
    bins = series.rates_by_length(samples, "tokens", 0.95, bins=4)
    assert sum(each.divergent.total for each in bins) == 100
    assert (bins[0].low, bins[0].high, bins[0].divergent.hits, bins[0].divergent.total) == (7, 7, 5, 50)
    assert all(one.high < other.low for one, other in itertools.pairwise(bins))


def test_prompts_of_one_length_are_one_bin():
    (only,) = series.rates_by_length([sample("a"), sample("b", "tie")], "tokens", 0.95)
    assert (only.low, only.high, only.divergent.hits, only.real.hits) == (10, 10, 1, 0)


def test_words_are_counted_where_a_prompts_tokens_are_unknown():
    samples = [sample("a"), sample("b", prompt_tokens=None, prompt=None, messages=[{"content": "two words"}])]
    unit = series.length_unit(samples)
    assert unit == "words"
    assert [series.prompt_length(each, unit) for each in samples] == [5, 2]


def test_length_differences_keep_equal_ones_apart_and_0_in_the_middle_of_a_bin():
    told = series.length_differences(with_lengths((5, 5), (5, 6), (9, 5), (5, 5)))
    assert told.same == 2
    assert told.mean == pytest.approx(-0.75)
    assert [(each.low, each.high, each.count) for each in told.bins if each.count] == [(-4, -4, 1), (1, 1, 1)]


@pytest.mark.parametrize("reach", [1, 12, 13, 40, 700, 12_345])
def test_bins_of_length_differences_are_few_touch_and_hold_everything(reach):
    told = series.length_differences(with_lengths((0, reach), (reach, 0), (10, 11), (3, 1)))
    assert len(told.bins) <= 25
    assert all(one.high + 1 == other.low for one, other in itertools.pairwise(told.bins))
    assert sum(each.count for each in told.bins) == 4
    (middle,) = [each for each in told.bins if each.low <= 0 <= each.high]
    assert middle.low == -middle.high


def test_a_difference_with_a_side_cut_at_the_limit_is_marked():
    told = series.length_differences(with_lengths((5, 9), reasons=("stop", "length")))
    assert [(each.count, each.cut) for each in told.bins if each.count] == [(1, 1)]


def test_margins_come_with_the_largest_shift_first_and_need_one_known_side():
    unknown = sample("u", "unclassified", flip=Flip(position=1))
    half = sample("h", "real", flip=Flip(position=1, baseline_margin=9.0, is_bound=True))
    found = series.margins([sample("t", "tie"), unknown, half, sample("e")])
    assert [(each.sample_id, each.is_bound) for each in found] == [("h", True), ("t", False)]


def test_finish_reasons_are_counted_in_pairs():
    told = series.finishes(with_lengths((1, 1), (2, 2), reasons=("stop", "length")) + with_lengths((1, 1)))
    assert told.counts == {("stop", "length"): 2, ("stop", "stop"): 1}
    assert told.reasons == ("length", "stop")
