"""What is read off one answer's tokens."""

import math

import pytest
from tests.unit.accuracy.healthy import scores

from ppd_accuracy.answers.scores import summarize


def test_differences_are_taken_token_by_token() -> None:
    told = summarize(scores([-1.0, -2.0, -0.5], [-1.1, -1.6, -0.5]))
    assert told.mean_delta == pytest.approx(0.5 / 3)
    assert told.max_delta == pytest.approx(0.4)
    assert told.max_delta_at == 1
    assert told.likelihood_delta == pytest.approx(0.1 - 0.4)


def test_the_first_token_that_is_not_the_baselines_best_is_the_first_difference() -> None:
    told = summarize(scores([-1.0] * 4, [-1.0] * 4, [0.0, 0.2, 0.0, 0.7]))
    assert (told.first_difference, told.first_margin, told.margin) == (1, 0.2, 0.7)
    assert told.token_accuracy == 0.5


def test_a_logprob_that_is_no_number_is_told_and_not_averaged_away() -> None:
    told = summarize(scores([-1.0, math.nan], [-1.25, -1.0]))
    assert not told.is_finite
    assert (told.mean_delta, told.max_delta) == (0.25, 0.25)


def test_an_answer_without_a_single_number_is_not_finite() -> None:
    told = summarize(scores([math.nan], [-1.0]))
    assert (told.is_finite, told.mean_delta, told.max_delta) == (False, 0.0, 0.0)


def test_scores_of_different_lengths_or_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="same tokens"):
        scores([-1.0, -2.0], [-1.0])
    with pytest.raises(ValueError, match="at least one"):
        scores([], [])
