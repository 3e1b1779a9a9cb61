"""Intervals of shares, against published figures."""

import pytest

from ppd_proxy.accuracy.intervals import difference, wilson


def test_wilson_as_published() -> None:
    """Newcombe 1998, table I: 81 of 263, and the corner cases 0 of 20 and 1 of 29."""
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29, 0.95) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_difference_as_published() -> None:
    """Newcombe 1998 (differences), method 10: 56/70 against 48/80, and 9/10 against 3/10."""
    assert difference(56, 70, 48, 80, 0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(9, 10, 3, 10, 0.95) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_nothing_seen_says_nothing() -> None:
    assert wilson(0, 0, 0.95) == (0.0, 1.0)
    assert difference(0, 0, 1, 5, 0.95) == (-1.0, 1.0)
