"""Totals and gates: which bound decides what, and what outweighs what."""

from collections import Counter

import pytest

from ppd_acc.batch.gating import Gate, Limits, gate_of, stopping, worst_of
from ppd_acc.data.report import Interval
from ppd_acc.data.totals import totals_of
from ppd_acc.outcome import Exit


def limits(rate=None, *, error_share=0.0, is_sequential=False):
    return Limits(rate=rate, error_share=error_share, confidence=0.95, is_sequential=is_sequential)


def statuses(**counts):
    return [status for status, count in counts.items() for _ in range(count)]


def outcome(rate=None, *, error_share=0.0, **counts):
    return gate_of(totals_of(statuses(**counts), 0.95), limits(rate, error_share=error_share)).outcome


def test_shares_are_of_what_was_compared_with_wilsons_interval():
    totals = totals_of(statuses(equal=85, tie=10, real=5, error=20), 0.95)
    assert (totals.samples, totals.compared, totals.rate, totals.real_rate) == (120, 100, 0.15, 0.05)
    # Wilson 1927 for 15 and 5 of 100, as scipy.stats.binomtest(...).proportion_ci(method="wilson") gives it.
    assert totals.rate_interval == Interval(low=pytest.approx(0.0931, abs=5e-5), high=pytest.approx(0.2328, abs=5e-5))
    assert totals.real_interval == Interval(low=pytest.approx(0.0215, abs=5e-5), high=pytest.approx(0.1118, abs=5e-5))


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"equal": 10, "tie": 5}, "pass"),
        ({"equal": 10, "real": 1}, "fail"),
        ({"equal": 10, "unclassified": 1}, "inconclusive"),
        ({"equal": 10, "unclassified": 1, "real": 1}, "fail"),
        ({"equal": 10, "error": 1}, "partial"),
        ({"equal": 10, "unclassified": 1, "error": 1}, "partial"),
        ({"real": 1, "error": 9}, "fail"),
        ({"error": 9}, "partial"),
        ({}, "partial"),
    ],
)
def test_without_a_limit(counts, told):
    assert outcome(**counts) == told
    assert outcome(0.0, **counts) == told


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"equal": 100}, "pass"),
        ({"equal": 96, "real": 4}, "inconclusive"),
        ({"equal": 80, "real": 20}, "fail"),
        ({"equal": 98, "unclassified": 2}, "pass"),
        ({"equal": 90, "unclassified": 10}, "inconclusive"),
        ({"equal": 50, "unclassified": 50}, "inconclusive"),
        ({"equal": 100, "error": 1}, "partial"),
        ({"equal": 80, "real": 20, "error": 50}, "fail"),
    ],
)
def test_with_a_limit_of_eight_percent(counts, told):
    assert outcome(0.08, **counts) == told


def test_the_published_gate_by_the_lower_bound_does_not_pass_here():
    """2 of 4 divergent at 20 %: Wilson 15 % to 85 %. The published tool passes it."""
    assert outcome(0.2, equal=2, real=2) == "inconclusive"


def test_allowed_errors_are_left_out():
    assert outcome(error_share=0.1, equal=9, error=1) == "pass"
    assert outcome(error_share=0.09, equal=9, error=1) == "partial"
    assert outcome(error_share=1.0, error=9) == "partial"


def test_a_sequential_test_stops_on_the_first_real_one_without_a_limit():
    assert stopping(Counter(equal=50, tie=3), limits(is_sequential=True)) is None
    gate = stopping(Counter(equal=50, real=1), limits(is_sequential=True))
    assert gate is not None
    assert gate.outcome == "fail"


def test_a_sequential_test_needs_more_than_an_interval_of_one_look():
    counts = Counter(equal=18, real=6)
    once = gate_of(totals_of(counts.elements(), 0.95), limits(0.08))
    assert once.outcome == "fail"
    assert stopping(counts, limits(0.08, is_sequential=True)) is None
    gate = stopping(Counter(equal=14, real=10), limits(0.08, is_sequential=True))
    assert gate is not None
    assert gate.outcome == "fail"
    unsure = Counter(equal=200, unclassified=30)
    assert stopping(unsure, limits(0.08, is_sequential=True)) is None
    passed = stopping(Counter(equal=400), limits(0.08, is_sequential=True))
    assert passed is not None
    assert passed.outcome == "pass"


def test_a_sequential_test_that_never_stopped_is_inconclusive():
    gate = gate_of(totals_of(statuses(equal=18, real=5), 0.95), limits(0.08, is_sequential=True))
    assert gate.outcome == "inconclusive"
    assert gate.more_samples


def test_the_worst_of_several_targets_decides():
    def gate(told):
        return Gate(outcome=told, reason="", interval=Interval(low=0, high=1))

    assert worst_of([gate("pass"), gate("partial"), gate("fail")]) == Exit.DIFFERENT
    assert worst_of([gate("inconclusive"), gate("partial")]) == Exit.INFRASTRUCTURE
    assert worst_of([gate("inconclusive"), gate("pass")]) == Exit.INCONCLUSIVE
    assert worst_of([gate("pass")]) == Exit.PASS


def test_the_missing_samples_count_what_could_not_be_classified():
    """A reason names one number, and it is that of `more_samples`."""
    counts = Counter(equal=99, unclassified=1)
    gate = gate_of(totals_of(counts.elements(), 0.95), limits(0.01))
    assert (gate.outcome, gate.more_samples) == ("inconclusive", None)
    assert "more samples needed" not in gate.reason
    sequential = gate_of(
        totals_of(Counter(equal=950, unclassified=50).elements(), 0.95), limits(0.01, is_sequential=True)
    )
    assert sequential.outcome == "inconclusive"
    assert "about 0 more" not in sequential.reason
    assert "50 that could not be classified" in sequential.reason
