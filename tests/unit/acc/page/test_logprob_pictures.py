"""Logprob differences and margins as pictures."""

from tests.support.acc.page_reports import NOISE, sample

from ppd_acc.data.report import Noise
from ppd_acc.page import series
from ppd_acc.page.logprob_pictures import floor_lines, margins_picture, positions_picture, prompts_picture

SAMPLES = [sample(f"s{number}", prompt_tokens=10 + number) for number in range(8)]
PARTED = [*SAMPLES, sample("r", "real"), sample("t", "tie")]


def test_without_logprobs_there_is_nothing_to_draw():
    assert positions_picture(series.deltas_by_position([]), NOISE).is_nothing
    assert prompts_picture(series.deltas_by_prompt([], "tokens"), NOISE, "tokens").is_nothing
    assert margins_picture([], NOISE, {}).is_nothing


def test_tokens_beyond_the_noise_floor_are_drawn_apart():
    deltas = series.deltas_by_position(SAMPLES)
    within = positions_picture(deltas, Noise(answers=9, tokens=99, largest_delta=10.0, largest_shift=1.0))
    beyond = positions_picture(deltas, Noise(answers=9, tokens=99, largest_delta=1e-9, largest_shift=1.0))
    assert len(beyond.keys) == len(within.keys) + 1
    assert beyond.finding != within.finding


def test_a_floor_that_was_not_measured_draws_no_line():
    assert floor_lines(Noise()) == {}
    assert floor_lines(NOISE)
    assert positions_picture(series.deltas_by_position(SAMPLES), Noise()).parts


def test_samples_are_drawn_by_their_prompts_length():
    picture = prompts_picture(series.deltas_by_prompt(PARTED, "tokens"), NOISE, "tokens")
    assert picture.parts
    assert picture.numbers is not None


def test_a_margin_leads_to_its_sample_where_the_page_has_it():
    margins = series.margins(PARTED)
    picture = margins_picture(margins, NOISE, {"r": "sample-r"})
    assert "#sample-r" in "".join(picture.parts)
    assert "#sample-r" not in "".join(margins_picture(margins, NOISE, {}).parts)
