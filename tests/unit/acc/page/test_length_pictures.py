"""Lengths and ends of answers."""

from collections import Counter

import pytest

from ppd_acc.page.length_pictures import differences_picture, finishes_table
from ppd_acc.page.series import NOT_TOLD, DifferenceBin, Differences, Finishes


@pytest.mark.parametrize(("same", "finding"), [(0, "No answer was compared."), (3, "All 3 answers are equally long")])
def test_without_a_difference_there_is_nothing_to_draw(same, finding):
    picture = differences_picture(Differences(same=same), "tokens")
    assert picture.is_nothing
    assert finding in picture.finding


@pytest.mark.parametrize(("mean", "word"), [(1.5, "1.5 tokens longer"), (-2.0, "2 tokens shorter")])
def test_the_finding_says_whose_answers_are_longer(mean, word):
    bins = (DifferenceBin(low=-2, high=-1, count=1, cut=0), DifferenceBin(low=0, high=1, count=2, cut=1))
    picture = differences_picture(Differences(same=4, bins=bins, mean=mean), "tokens")
    assert picture.finding.startswith("4 of 7 answers are equally long")
    assert word in picture.finding
    assert [key.label for key in picture.keys][-1] == "a side was cut at max_tokens"


def test_no_answer_that_was_cut_needs_no_key():
    bins = (DifferenceBin(low=0, high=1, count=2, cut=0),)
    assert len(differences_picture(Differences(same=0, bins=bins, mean=1.0), "tokens").keys) == 1


@pytest.mark.parametrize(
    ("counts", "finding"),
    [
        ({}, "No answer was compared."),
        ({("stop", "stop"): 3}, "All 3 pairs ended for the same reason."),
        ({("stop", "length"): 1, ("stop", "stop"): 2}, "1 of 3 pairs ended for different reasons."),
        ({("stop", NOT_TOLD): 2}, "No engine told why its answers ended, or only one did."),
    ],
)
def test_ends_are_counted_in_pairs(counts, finding):
    reasons = tuple(dict.fromkeys(reason for pair in counts for reason in pair))
    picture = finishes_table(Finishes(reasons=reasons, counts=Counter(counts)))
    assert picture.finding == finding
    assert (picture.content is not None) == bool(counts)
