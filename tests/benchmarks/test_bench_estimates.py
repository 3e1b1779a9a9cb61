import numpy as np
import pytest

from estimates import WAIT_S, is_wait, median, ratio_of_medians


def test_ratio_of_medians_is_that_of_all_values_together():
    ratio = ratio_of_medians([[1.0, 1.0], [3.0]], [[2.0], [4.0, 4.0]], seed=0)
    assert ratio.value == pytest.approx(1.0 / 4.0)
    assert ratio.low <= ratio.value <= ratio.high


def test_interval_is_repeatable_and_narrows_with_more_conversations():
    generator = np.random.default_rng(1)

    def conversations(count, scale):
        return [list(scale * generator.lognormal(0, 0.3, 4)) for _ in range(count)]

    few = (conversations(4, 0.3), conversations(4, 1.0))
    many = (conversations(60, 0.3), conversations(60, 1.0))
    first, again, wide = (ratio_of_medians(*data, seed=7) for data in (many, many, few))
    assert first == again
    assert first.high - first.low < wide.high - wide.low
    assert first.low < 0.3 < first.high


def test_interval_draws_whole_conversations():
    # Turns of one conversation move together: drawn one by one the interval would be far too narrow.
    slow_and_fast = [[1.0] * 50, [3.0] * 50]
    ratio = ratio_of_medians(slow_and_fast, [[1.0]], seed=0)
    assert (ratio.low, ratio.high) == (1.0, 3.0)


def test_conversations_without_values_are_passed_over():
    assert ratio_of_medians([[], [2.0]], [[4.0], []], seed=0).value == 0.5
    with pytest.raises(ValueError, match="no conversation"):
        ratio_of_medians([[]], [[1.0]], seed=0)


def test_median_of_nothing_is_an_error():
    assert median([3.0, 1.0, 2.0]) == 2.0
    with pytest.raises(ValueError, match="nothing"):
        median([])


def test_wait_is_more_than_the_limit_above_the_median():
    assert not is_wait(1.0 + WAIT_S, 1.0)
    assert is_wait(1.01 + WAIT_S, 1.0)
