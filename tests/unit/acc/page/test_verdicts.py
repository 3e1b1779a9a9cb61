"""The headline of a page."""

import pytest
from tests.support.acc.page_reports import report, sample

from ppd_acc.data.totals import totals_in
from ppd_acc.page.verdicts import headline


def told(*samples, **more):
    made = report(list(samples), **more)
    return headline(made, totals_in(made))


@pytest.mark.parametrize(
    ("statuses", "outcome", "words"),
    [
        ([], "inconclusive", "Nothing was compared"),
        (["error"], "partial", "None of 1 samples could be compared"),
        (["real", "equal"], "fail", "1 of 2 answers differs by more than noise"),
        (["unclassified", "unclassified"], "inconclusive", "2 of 2 answers differ, and it is not known why"),
        (["tie", "equal"], "pass", "1 of 2 answers differs, by ties only"),
        (["equal", "error"], "partial", "All 1 answers are equal"),
        (["equal", "equal"], "pass", "All 2 answers are equal"),
    ],
)
def test_without_a_gate_the_samples_decide(statuses, outcome, words):
    shown = told(*(sample(f"s{number}", status) for number, status in enumerate(statuses)))
    assert (shown.outcome, shown.told, shown.is_gated) == (outcome, words, False)


def test_a_gate_has_the_last_word():
    shown = told(sample("a", "real"), gate={"outcome": "pass", "reason": "one is allowed"})
    assert (shown.outcome, shown.reason, shown.is_gated) == ("pass", "one is allowed", True)


def test_a_gate_that_says_nothing_known_is_none():
    assert not told(sample("a"), gate={"outcome": "green"}).is_gated


def test_answers_that_end_for_two_reasons_are_only_the_same_tokens():
    assert told(sample("a", has_same_finish=False)).told == "All 1 answers have the same tokens"
