"""What the pictures of answers say: shares, curves, lengths, places."""

import pytest
from tests.support.acc.page_reports import report, sample

from ppd_acc.data.report import Noise
from ppd_acc.page import series
from ppd_acc.page.answer_pictures import hazard_picture, lengths_picture, percent, shares_picture, survival_picture


@pytest.mark.parametrize(
    ("ones", "flips", "finding"),
    [
        (["real"] * 8, 0, "Answers differ more often than the baseline's own do"),
        (["tie"], 20, "The baseline's own answers differ more often"),
        (["real"], 1, "1 of 10 answers are no tie, however few differ"),
        (["tie"], 1, "cannot tell that more differ than its own do"),
        ([], 0, "All answers are equal, and so are the baseline's own"),
    ],
)
def test_the_finding_beside_the_shares_says_what_they_can_tell(ones, flips, finding):
    samples = [sample(f"d{number}", status) for number, status in enumerate(ones)]
    samples += [sample(f"e{number}") for number in range(10 - len(ones))]
    noise = Noise(answers=20, flips=flips, tokens=400, largest_shift=0.05, largest_delta=0.03)
    picture = shares_picture(series.shares(report(samples, noise=noise), 0.95), 0.95)
    assert finding in picture.finding


def test_the_finding_says_what_was_not_measured():
    told = (series.shares(report(samples, noise=Noise()), 0.95) for samples in ([], [sample("a")]))
    nothing, unmeasured = (shares_picture(each, 0.95).finding for each in told)
    assert "No answer was compared." in nothing
    assert "The noise floor was not measured" in unmeasured


def test_a_share_of_nothing_is_unknown_and_no_line_breaks_before_the_sign():
    assert percent(None) == "unknown"
    assert percent(0.125, 2) == "12.50\u00a0%"


def test_prompts_are_held_against_each_other_by_length():
    floor = series.shares(report([sample("a")]), 0.95)[2]
    parted = [sample(f"l{number}", "real", prompt_tokens=900 + number) for number in range(40)]
    equal = [sample(f"s{number}", prompt_tokens=10 + number) for number in range(40)]
    bins = series.rates_by_length([*equal, *parted], "tokens", 0.95)
    assert (
        "longest prompts differ more often than those to the shortest"
        in lengths_picture(bins, floor, "tokens", 0.95).finding
    )
    assert lengths_picture([], floor, "tokens", 0.95).is_nothing


def test_the_first_token_is_held_against_later_ones():
    early = [sample(f"d{number}", "real", at=0) for number in range(30)]
    late = [sample(f"e{number}") for number in range(30)]
    picture = hazard_picture(series.hazard_bins([*early, *late], 0.95), "tokens", 0.95)
    assert picture.finding.startswith("The first token, which prefill gives, differs more often than later ones")
    assert hazard_picture([], "words", 0.95).finding == "No word was compared."


def test_the_curves_are_drawn_with_their_numbers():
    samples = [sample("a"), sample("b", "real", at=5), sample("c", "tie", at=8)]
    picture = survival_picture(samples, 0.95, "tokens")
    assert picture.parts
    assert picture.numbers is not None
