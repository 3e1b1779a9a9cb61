"""Three outcomes, and the number of samples that are missing: checked by adding them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from ppd_accuracy.statistics import gates
from ppd_accuracy.statistics.intervals import wilson


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.floats(0, 1))
def test_a_rate_is_judged_by_the_bound_on_the_side_of_its_limit(hits: int, misses: int, limit: float) -> None:
    decision = gates.rate(hits, hits + misses, limit, 0.95)
    low, high = wilson(hits, hits + misses, 0.95)
    if not hits + misses:
        assert decision.outcome == "inconclusive"
    else:
        below, above = (
            binomtest(hits, hits + misses, limit, alternative=side).pvalue <= 0.025 for side in ("less", "greater")
        )
        is_pass = high <= limit and (below or limit == 1)
        assert decision.outcome == ("pass" if is_pass else "fail" if low > limit and above else "inconclusive")
    assert decision.more_samples is None or decision.more_samples >= 1


@pytest.mark.parametrize("limit", [0.01, 0.02, 0.05, 0.1, 0.2, 0.8])
def test_no_handful_of_samples_decides_of_a_run_at_its_limit(limit: float) -> None:
    """By Wilson's interval alone, one hit in 17 fails a limit of 1 %: 16 % of runs at the limit have that."""
    for total in (1, 2, 3, 8, 17, 50, 200):
        shares = {"pass": 0.0, "fail": 0.0, "inconclusive": 0.0}
        for hits in range(total + 1):
            shares[gates.rate(hits, total, limit, 0.95).outcome] += float(binom.pmf(hits, total, limit))
        assert shares["fail"] <= 0.025
        assert shares["pass"] <= 0.025


def test_two_of_four_do_not_pass_a_gate_of_a_fifth() -> None:
    """The published tool passes them: it holds the lower bound (15 %) against the limit."""
    decision = gates.rate(2, 4, 0.2, 0.95)
    assert decision.outcome == "inconclusive"
    assert decision.interval == pytest.approx((0.15, 0.85), abs=5e-3)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_the_missing_samples_at_the_same_rate_decide(hits: int, misses: int, limit: float) -> None:
    total = hits + misses
    decision = gates.rate(hits, total, limit, 0.95)
    if decision.outcome != "inconclusive":
        return
    if decision.more_samples is None:
        assert abs(hits / total - limit) < 0.003
        return
    # The same rate needs a multiple of the total: the next one decides, and half as many would not have.
    times = math.ceil((total + decision.more_samples) / total)
    assert gates.rate(hits * times, total * times, limit, 0.95).outcome != "inconclusive"
    fewer = (total + decision.more_samples) // (2 * total)
    assert fewer < 1 or gates.rate(hits * fewer, total * fewer, limit, 0.95).outcome == "inconclusive"


def test_no_hit_so_far_needs_73_samples_for_five_percent() -> None:
    """z^2 (1 - L) / L = 3.8415 x 19 = 72.99."""
    assert gates.rate(0, 0, 0.05, 0.95).more_samples == 73
    assert gates.rate(0, 30, 0.05, 0.95).more_samples == 43
    assert gates.rate(0, 72, 0.05, 0.95).outcome == "inconclusive"
    assert gates.rate(0, 73, 0.05, 0.95).outcome == "pass"


def test_a_rate_that_equals_its_limit_is_never_decided() -> None:
    decision = gates.rate(5, 100, 0.05, 0.95)
    assert (decision.outcome, decision.more_samples) == ("inconclusive", None)


def test_a_limit_that_no_number_of_samples_shows_has_none() -> None:
    assert gates.rate(0, 0, 1e-308, 0.95).more_samples is None
    assert gates.rate(50, 1000, 0.05 + 1e-12, 0.95).more_samples is None


def test_a_limit_of_nothing_fails_on_what_is_seen_and_never_passes() -> None:
    assert gates.rate(1, 1000, 0.0, 0.95).outcome == "fail"
    decision = gates.rate(0, 1000, 0.0, 0.95)
    assert (decision.outcome, decision.more_samples) == ("inconclusive", None)


def test_a_limit_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"limit is nan"):
        gates.rate(0, 100, math.nan, 0.95)


def test_nested_divergences_are_significant_harm() -> None:
    """5 and 15 of the same 100: 10 discordant pairs, all one way. As different samples they would be Fisher 0.0317."""
    decision = gates.paired(harms=10, gains=0, both=5, total=100, alpha=0.05)
    assert decision.outcome == "fail"
    assert decision.p == pytest.approx(2 / 1024)
    assert decision.interval.low > 0
    better = gates.paired(harms=0, gains=10, both=5, total=100, alpha=0.05)
    assert better.outcome == "pass"
    assert better.interval.high < 0


def test_five_regressions_and_two_fixes_are_inconclusive() -> None:
    decision = gates.paired(harms=5, gains=2, both=0, total=100, alpha=0.05)
    assert decision.outcome == "inconclusive"
    assert decision.p == pytest.approx(0.4531, abs=5e-5)
    assert decision.more_samples > 100


def test_pairs_without_a_difference_pass_and_no_pairs_do_not() -> None:
    assert gates.paired(0, 0, 3, 10, 0.05).outcome == "pass"
    assert gates.paired(0, 0, 0, 0, 0.05).outcome == "inconclusive"
    assert gates.paired(3, 3, 0, 50, 0.05).more_samples is None


def test_unpaired_runs_are_judged_by_fisher() -> None:
    harm = gates.unpaired(5, 100, 15, 100, 0.05)
    assert harm.outcome == "fail"
    assert harm.p == pytest.approx(0.03172, abs=5e-6)
    assert harm.interval.low > 0
    gain = gates.unpaired(7, 20, 1, 20, 0.05)
    assert gain.outcome == "pass"
    assert gain.p == pytest.approx(0.0436, abs=5e-5)
    assert gain.interval.high < 0


def test_unpaired_runs_that_may_differ_need_more_samples_each() -> None:
    decision = gates.unpaired(5, 50, 8, 50, 0.05)
    assert decision.outcome == "inconclusive"
    assert decision.more_samples > 400
    assert gates.unpaired(5, 50, 5, 50, 0.05).more_samples is None
    assert gates.unpaired(0, 50, 0, 50, 0.05).outcome == "pass"
    assert gates.unpaired(0, 0, 5, 50, 0.05).outcome == "inconclusive"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="must be from 0"):
        gates.rate(5, 4, 0.1, 0.95)
    with pytest.raises(ValueError, match="must be from 0"):
        gates.paired(5, 4, 2, 10, 0.05)
    with pytest.raises(ValueError, match="confidence"):
        gates.rate(1, 4, 0.1, 95)
