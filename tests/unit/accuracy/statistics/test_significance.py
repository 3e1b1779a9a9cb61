"""Tests of two runs, against enumeration, textbook figures and the published tool where that is right."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppd_accuracy.statistics.significance import (
    fisher,
    holm,
    mcnemar,
    odds_ratio,
    paired_odds_ratio,
    sign_flip,
    student,
)

SLEEP = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0), (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)
"""Student 1908: hours of sleep gained by ten patients on each of two drugs. Paired t 4.0621, p 0.002833."""


def half_of_coins(least: int, count: int) -> float:
    """P(at most `least` or at least count - least heads), in whole numbers."""
    ways = sum(math.comb(count, heads) for heads in range(count + 1) if min(heads, count - heads) <= least)
    return float(Fraction(ways, 2**count))


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_a_fair_coin_over_the_discordant_pairs(one: int, other: int) -> None:
    assert mcnemar(one, other) == pytest.approx(half_of_coins(min(one, other), one + other))


def test_mcnemar_known_values() -> None:
    """Ten discordant pairs one way: 5 and 15 divergent of the same 100 prompts, nested. Five regressions, two fixes."""
    assert mcnemar(0, 10) == pytest.approx(2 / 1024)
    assert mcnemar(5, 2) == pytest.approx(2 * (1 + 7 + 21) / 128) == pytest.approx(0.4531, abs=5e-5)


@pytest.mark.parametrize(
    ("hits", "total", "other_hits", "other_total", "published"),
    [(5, 100, 15, 100, 0.03172003908631784), (7, 20, 1, 20, 0.043596043596043264), (0, 100, 10, 100, 0.0015420521254)],
)
def test_fisher_as_the_published_tool(
    hits: int, total: int, other_hits: int, other_total: int, published: float
) -> None:
    """xpyd-acc 0.1.0, ab_test.fisher_exact_two_sided."""
    assert fisher(hits, total, other_hits, other_total) == pytest.approx(published, rel=1e-9)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_fisher_adds_up_the_tables_that_are_no_likelier(total: int, other_total: int, data: st.DataObject) -> None:
    hits, other_hits = data.draw(st.integers(0, total)), data.draw(st.integers(0, other_total))
    both = hits + other_hits
    ways = {
        place: math.comb(total, place) * math.comb(other_total, both - place)
        for place in range(max(0, both - other_total), min(both, total) + 1)
    }
    expected = Fraction(
        sum(count for count in ways.values() if count <= ways[hits]), math.comb(total + other_total, both)
    )
    assert fisher(hits, total, other_hits, other_total) == pytest.approx(float(expected))


def chances(hits_in_all: int, total: int, other_total: int, odds: float) -> list[float]:
    """Of 0, 1, ... hits in the second run, given the hits in both and the odds ratio: Fisher's distribution."""
    ways = [math.comb(other_total, k) * math.comb(total, hits_in_all - k) * odds**k for k in range(hits_in_all + 1)]
    return [each / sum(ways) for each in ways]


def test_odds_ratio_of_the_lady_tasting_tea() -> None:
    """R's fisher.test(TeaTasting): 6.408309, interval from 0.2117329 (its upper end, 621.93, is found coarsely)."""
    found = odds_ratio(1, 4, 3, 4, 0.95)
    assert found.value == pytest.approx(6.408309, rel=1e-5)
    assert found.interval.low == pytest.approx(0.2117329, rel=5e-5)
    assert sum(chances(4, 4, 4, found.interval.low)[3:]) == pytest.approx(0.025)
    assert sum(chances(4, 4, 4, found.interval.high)[:4]) == pytest.approx(0.025)
    # The conditional estimate: 3 is what is expected at it.
    assert sum(k * chance for k, chance in enumerate(chances(4, 4, 4, found.value))) == pytest.approx(3)


def test_an_odds_ratio_without_hits_on_one_side_is_open_on_one_side() -> None:
    found = odds_ratio(0, 100, 10, 100, 0.95)
    assert found.value == math.inf
    assert found.interval.high == math.inf
    assert chances(10, 100, 100, found.interval.low)[10] == pytest.approx(0.025, rel=1e-6)


def test_an_odds_ratio_of_nothing_is_anything() -> None:
    found = odds_ratio(0, 100, 0, 100, 0.95)
    assert found.value is None
    assert found.interval == (0.0, math.inf)


def test_paired_odds_ratio_as_published() -> None:
    """Armitage and Berry 1994, p. 127: 12 and 2 discordant pairs; ratio 6, exact interval 1.335744 to 55.197091."""
    found = paired_odds_ratio(2, 12, 0.95)
    assert found.value == pytest.approx(6)
    assert found.interval == pytest.approx((1.335744, 55.197091), rel=1e-6)


def test_a_paired_odds_ratio_of_one_way_is_open_on_one_side() -> None:
    """Ten of ten: the lower end of the coin's share is 0.025^(1/10)."""
    found = paired_odds_ratio(0, 10, 0.95)
    share = 0.025 ** (1 / 10)
    assert (found.value, found.interval.high) == (math.inf, math.inf)
    assert found.interval.low == pytest.approx(share / (1 - share))
    assert paired_odds_ratio(0, 0, 0.95).value is None


def enumerated(values: list[float]) -> float:
    observed = abs(math.fsum(values))
    sums = [
        abs(math.fsum(sign * each for sign, each in zip(signs, values, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(values))
    ]
    return sum(each >= observed - 1e-9 for each in sums) / len(sums)


@settings(deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_sign_flips_of_a_few_are_enumerated(values: list[int]) -> None:
    found = sign_flip([each / 3 for each in values], seed=0)
    assert found.resamples is None
    assert found.p == pytest.approx(enumerated([each / 3 for each in values]))


def test_sign_flips_of_whole_numbers_are_exact_at_any_count() -> None:
    """Equal sizes make it the sign test."""
    assert sign_flip([3] * 60 + [-3] * 40, seed=0).p == pytest.approx(mcnemar(60, 40))
    values = np.random.default_rng(3).integers(-9, 12, 60).tolist()
    exact, drawn = sign_flip(values, seed=0), sign_flip([each / 7 for each in values], seed=0)
    assert exact.resamples is None
    assert drawn.resamples is not None
    assert drawn.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p * (1 - exact.p) / drawn.resamples))


def test_sign_flips_of_sleep_as_published() -> None:
    """Enumeration by hand of 2^9 signs; scipy's permutation_test agrees."""
    differences = [b - a for a, b in zip(*SLEEP, strict=True)]
    expected = stats.permutation_test(
        (np.array(differences),), lambda x: x.sum(), permutation_type="samples", n_resamples=np.inf, vectorized=False
    ).pvalue
    assert sign_flip(differences, seed=0).p == pytest.approx(expected) == pytest.approx(enumerated(differences))


def test_a_drawn_p_is_never_zero_and_follows_its_seed() -> None:
    values = np.random.default_rng(5).normal(3.0, 0.1, 200).tolist()
    assert sign_flip(values, seed=1, resamples=500).p == 1 / 501
    mild = np.random.default_rng(6).normal(0.05, 1.0, 200).tolist()
    assert sign_flip(mild, seed=1) == sign_flip(mild, seed=1) != sign_flip(mild, seed=2)


def test_no_difference_at_all_is_no_evidence() -> None:
    assert sign_flip([0.0] * 50, seed=0).p == 1.0
    assert student([0.0] * 50, 0.95).p == 1.0
    assert mcnemar(0, 0) == 1.0


def test_student_as_published() -> None:
    found = student([b - a for a, b in zip(*SLEEP, strict=True)], 0.95)
    assert found.mean == pytest.approx(1.58)
    assert found.statistic == pytest.approx(4.0621, abs=5e-5)
    assert found.degrees == 9
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert found.interval == pytest.approx((0.7001142, 2.4598858), abs=5e-8)


def test_student_has_heavier_tails_than_the_normal_distribution() -> None:
    """The published length-bias takes its p from the normal distribution: of 1, 2 and 6 it makes 0.0495, "biased"."""
    found = student([1.0, 2.0, 6.0], 0.95)
    assert found.statistic == pytest.approx(1.963961)
    assert math.erfc(found.statistic / math.sqrt(2)) == pytest.approx(0.0495, abs=5e-5)
    # Two degrees of freedom: P(|T| > t) = 1 - t / sqrt(t^2 + 2).
    assert found.p == pytest.approx(1 - 1.963961 / math.sqrt(1.963961**2 + 2), abs=1e-6)


@pytest.mark.parametrize("values", [[], [2.0], [3.0, 3.0, 3.0]])
def test_student_without_a_spread_has_no_p(values: list[float]) -> None:
    found = student(values, 0.95)
    assert (found.interval, found.statistic, found.p) == (None, None, None)


def test_holm_as_worked_by_hand() -> None:
    """0.01 x 4; 0.02 x 3; 0.03 x 2 = 0.06 is not below the one before it; 0.005 is the smallest of all."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))
    assert max(adjusted) <= 1
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert [adjusted[place] for place in order] == sorted(adjusted)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fisher(5, 4, 1, 2),
        lambda: mcnemar(-1, 2),
        lambda: student([1.0, math.nan], 0.95),
        lambda: sign_flip([math.inf], 0),
        lambda: holm([math.nan]),
        lambda: student([1.0, 2.0], 95),
        lambda: odds_ratio(1, 2, 1, 2, 1.0),
    ],
)
def test_what_cannot_be_is_refused(call) -> None:
    with pytest.raises(ValueError, match=r"must be|no finite"):
        call()


@pytest.mark.parametrize("values", [[1e-200, 2e-200], [1e160, 1.1e160]])
def test_numbers_whose_squares_are_none_have_no_interval(values) -> None:
    found = student(values, 0.95)
    assert (found.interval, found.p) == (None, None)
