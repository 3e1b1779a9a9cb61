"""Intervals of shares, against published figures."""

import math

import numpy as np
import pytest

from ppd_accuracy.statistics.intervals import difference, paired_difference, wilson


def test_wilson_as_published() -> None:
    """Newcombe 1998, table I: 81 of 263, and the corner cases 0 of 20 and 1 of 29."""
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29, 0.95) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_difference_as_published() -> None:
    """Newcombe 1998 (differences), method 10: 56/70 against 48/80, and 9/10 against 3/10."""
    assert difference(56, 70, 48, 80, 0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(9, 10, 3, 10, 0.95) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_wilson_as_the_published_tool() -> None:
    """xpyd-acc 0.1.0, confidence.wilson_ci; its quantile of the normal distribution is good to 4.5e-4 only."""
    assert wilson(5, 100, 0.95) == pytest.approx((0.021539878196764957, 0.11176837050545009), abs=1e-4)
    assert wilson(7, 20, 0.95) == pytest.approx((0.18116459044239228, 0.5671907885518346), abs=1e-4)


@pytest.mark.parametrize("total", [1, 7, 1000])
def test_the_bounds_of_none_and_of_all_are_exact(total: int) -> None:
    assert wilson(0, total, 0.95).low == 0.0
    assert wilson(total, total, 0.95).high == 1.0


def test_paired_difference_as_published() -> None:
    """Fagerland, Lydersen and Laake 2014: of 21 patients 1 both times, 1 before and 7 after only; 0.026 to 0.507."""
    assert paired_difference(1, 7, 1, 21, 0.95) == pytest.approx((0.026, 0.507), abs=5e-4)
    assert paired_difference(7, 1, 1, 21, 0.95) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_pairs_that_go_together_narrow_the_difference() -> None:
    nested, apart = paired_difference(0, 10, 5, 100, 0.95), difference(15, 100, 5, 100, 0.95)
    assert nested.high - nested.low < 0.8 * (apart.high - apart.low)


@pytest.mark.parametrize("shares", [(0.05, 0.15, 0.05), (0.1, 0.1, 0.3), (0.0, 0.08, 0.2)])
def test_paired_difference_covers_the_true_one(shares: tuple[float, float, float]) -> None:
    drawn = np.random.default_rng(4).multinomial(100, [*shares, 1 - sum(shares)], 2000).tolist()
    intervals = [paired_difference(one, other, both, 100, 0.95) for one, other, both, _ in drawn]
    covered = sum(each.low <= shares[1] - shares[0] <= each.high for each in intervals) / len(intervals)
    assert covered >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_nothing_seen_says_nothing() -> None:
    assert wilson(0, 0, 0.95) == (0.0, 1.0)
    assert difference(0, 0, 1, 5, 0.95) == (-1.0, 1.0)
    assert paired_difference(0, 0, 0, 0, 0.95) == (-1.0, 1.0)
