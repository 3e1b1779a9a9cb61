import math

import numpy as np
import pytest

from ppd_accuracy.statistics.quantiles import quantile


def chance_below(rank, count, share):
    """P(the value of this rank lies above the quantile): fewer than `rank` of `count` values are below it."""
    return math.fsum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(rank))


@pytest.mark.parametrize(("count", "share"), [(20, 0.5), (101, 0.5), (100, 0.9), (80, 0.95), (1000, 0.99)])
def test_the_interval_is_the_narrowest_pair_of_ranks_that_keeps_its_confidence(count, share):
    found = quantile([float(value) for value in range(1, count + 1)], share, 0.95)
    low, high = int(found.interval.low), int(found.interval.high)
    assert chance_below(low, count, share) <= 0.025 < chance_below(low + 1, count, share)
    assert 1 - chance_below(high, count, share) <= 0.025 < 1 - chance_below(high - 1, count, share)


def test_the_median_of_ten_has_the_interval_of_the_sign_test():
    found = quantile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 0.5, 0.95)
    assert found.value == 5.5
    assert found.interval == (2, 9)  # 1 - 2 * (1 + 10) / 1024 = 0.979; ranks 3 and 8 reach 0.891 only


def test_too_few_values_have_no_interval():
    assert quantile([1.0] * 5, 0.5, 0.95).interval is None
    assert quantile(np.arange(100.0), 0.99, 0.95).interval is None
    assert quantile([], 0.5, 0.95) is None


def test_intervals_hold_the_true_quantile_as_often_as_they_say():
    draws = np.random.default_rng(7).exponential(size=(2000, 40))
    truth = -math.log(1 - 0.75)
    held = [found.interval.low <= truth <= found.interval.high for found in (quantile(row, 0.75, 0.9) for row in draws)]
    assert np.mean(held) >= 0.9 - 3 * math.sqrt(0.09 / 2000)


@pytest.mark.parametrize(
    ("values", "share", "confidence"),
    [([math.nan], 0.5, 0.9), ([1.0], 1.0, 0.9), ([1.0], math.nan, 0.9), ([1.0], 0.5, 1)],
)
def test_what_is_no_number_or_no_share_is_refused(values, share, confidence):
    with pytest.raises(ValueError, match=r"must be|no finite"):
        quantile(values, share, confidence)
