"""Stopping early keeps its errors under continuous peeking: simulated, and the evidence against quadrature."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from ppd_accuracy.statistics.gates import rate as fixed_gate
from ppd_accuracy.statistics.sequential import confidence_sequence, judge, more_samples

RUNS, LONGEST, ALPHA = 400, 600, 0.05


def first_outcomes(rate: float, limit: float, seed: int) -> list[tuple[str, int]]:
    """Looks after every sample; what is decided first, and when."""
    table: dict[tuple[int, int], str] = {}
    found = []
    for row in np.random.default_rng(seed).random((RUNS, LONGEST)) < rate:
        hits, outcome, total = 0, "continue", 0
        for total, hit in enumerate(row.tolist(), start=1):
            hits += hit
            key = (hits, total)
            if key not in table:
                table[key] = judge(hits, total, limit, ALPHA).outcome
            outcome = table[key]
            if outcome != "continue":
                break
        found.append((outcome, total))
    return found


def share(found: list[tuple[str, int]], outcome: str) -> float:
    return sum(each == outcome for each, _ in found) / len(found)


# Three standard errors of a share of 5 % in 400 runs are 3.3 %.
@pytest.mark.parametrize(("rate", "limit"), [(0.05, 0.05), (0.2, 0.2), (0.01, 0.05)])
def test_a_rate_that_keeps_the_limit_rarely_fails_however_often_one_looks(rate: float, limit: float) -> None:
    assert share(first_outcomes(rate, limit, 1), "fail") <= ALPHA + 0.033


@pytest.mark.parametrize(("rate", "limit"), [(0.0501, 0.05), (0.2, 0.2), (0.1, 0.05)])
def test_a_rate_over_the_limit_rarely_passes_however_often_one_looks(rate: float, limit: float) -> None:
    assert share(first_outcomes(rate, limit, 2), "pass") <= ALPHA + 0.033


def test_looking_again_and_again_at_a_fixed_interval_would_not_keep_its_error() -> None:
    """Why this module exists: Wilson's interval excludes the true rate sooner or later in every third run."""
    crossed, is_decided = 0, cache(lambda hits, total: fixed_gate(hits, total, 0.2, 0.95).outcome != "inconclusive")
    for row in np.random.default_rng(1).random((100, LONGEST)) < 0.2:
        hits = np.cumsum(row).tolist()
        crossed += any(is_decided(hits[n - 1], n) for n in range(1, LONGEST, 3))
    assert crossed / 100 > 0.2


def test_a_clear_case_stops_early() -> None:
    over, under = first_outcomes(0.3, 0.05, 3), first_outcomes(0.0, 0.05, 4)
    assert share(over, "fail") >= 0.99
    assert np.mean([count for _, count in over]) < 30
    assert share(under, "pass") == 1.0
    assert {count for _, count in under} == {more_samples(0, 0, 0.05, ALPHA)}


def test_the_confidence_sequence_holds_the_rate_at_all_moments_at_once() -> None:
    left, table = 0, {}
    for row in np.random.default_rng(5).random((RUNS, 200)) < 0.1:
        hits = np.cumsum(row).tolist()
        for total in range(1, 201):
            key = (hits[total - 1], total)
            if key not in table:
                low, high = confidence_sequence(*key, ALPHA)
                table[key] = low <= 0.1 <= high
            if not table[key]:
                left += 1
                break
    assert left / RUNS <= ALPHA + 0.033


@pytest.mark.parametrize(("hits", "total", "limit"), [(3, 20, 0.05), (0, 40, 0.05), (10, 30, 0.5), (1, 3, 0.9)])
def test_the_evidence_is_the_mixture_of_likelihood_ratios(hits: int, total: int, limit: float) -> None:
    def integrand(angle: float) -> float:
        # The rate is sin^2(angle): Jeffreys' distribution is even in the angle.
        rate = math.sin(angle) ** 2
        return (rate / limit) ** hits * ((1 - rate) / (1 - limit)) ** (total - hits)

    cut = math.asin(math.sqrt(limit))
    over = integrate.quad(integrand, cut, math.pi / 2)[0] / (math.pi / 2 - cut)
    under = integrate.quad(integrand, 0, cut)[0] / cut
    verdict = judge(hits, total, limit, 0.05)
    assert math.exp(verdict.log_over) == pytest.approx(over, rel=1e-6)
    assert math.exp(verdict.log_under) == pytest.approx(under, rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.01, 0.05, 0.3]))
def test_the_next_sample_leaves_the_expected_evidence_where_it_was(hits: int, misses: int, limit: float) -> None:
    """A martingale at the limit itself: limit x E(after a hit) + (1 - limit) x E(after none) = E."""
    total = hits + misses
    now, hit, none = (judge(hits + extra, total + one, limit, 0.05) for extra, one in ((0, 0), (1, 1), (0, 1)))
    for attribute in ("log_over", "log_under"):
        evidence = [math.exp(getattr(each, attribute)) for each in (now, hit, none)]
        assert limit * evidence[1] + (1 - limit) * evidence[2] == pytest.approx(evidence[0], rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(1, 60), st.sampled_from([0.02, 0.1]))
def test_the_missing_samples_at_the_same_rate_decide(hits: int, misses: int, limit: float) -> None:
    total = hits + misses
    more = more_samples(hits, total, limit, 0.05)
    if more is None:
        assert abs(hits / total - limit) < 0.01
    elif more == 0:
        assert judge(hits, total, limit, 0.05).outcome != "continue"
    else:
        assert judge(hits, total, limit, 0.05).outcome == "continue"
        times = math.ceil((total + more) / total)
        assert judge(hits * times, total * times, limit, 0.05).outcome != "continue"


def test_where_none_is_allowed_the_first_hit_fails() -> None:
    assert judge(0, 1000, 0.0, 0.05).outcome == "continue"
    assert judge(1, 1000, 0.0, 0.05).outcome == "fail"
    assert more_samples(0, 10, 0.0, 0.05) is None


def test_where_everything_is_allowed_anything_passes() -> None:
    assert judge(3, 3, 1.0, 0.05).outcome == "pass"


@pytest.mark.parametrize(
    ("hits", "total", "limit", "alpha"), [(2, 1, 0.1, 0.05), (0, 1, math.nan, 0.05), (0, 1, 0.1, 0)]
)
def test_what_cannot_be_is_refused(hits: int, total: int, limit: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        judge(hits, total, limit, alpha)
