"""Logprobs of equal tokens against the noise: a test of ranks, worked by hand and by simulation."""

import math

import numpy as np
import pytest

from ppd_accuracy.answers.precision import chance_beyond, excess


@pytest.mark.parametrize(
    ("beyond", "tokens", "healthy"), [(0, 5, 10), (1, 5, 10), (3, 5, 10), (5, 5, 10), (2, 64, 500)]
)
def test_the_chance_is_the_share_of_orders_in_which_the_largest_are_all_tokens(beyond, tokens, healthy):
    orders = math.comb(healthy + tokens - beyond, healthy) / math.comb(healthy + tokens, healthy)
    assert chance_beyond(beyond, tokens, healthy) == pytest.approx(orders)


def noisy(random, answers, tokens, *, spread, times=1.0):
    """Answers whose noise differs: the logarithm of its scale is normal."""
    return [
        (times * np.exp(random.normal(0, spread)) * random.exponential(size=tokens)).tolist() for _ in range(answers)
    ]


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("answers", "healthy", "tokens"), [(1, 8, 128), (24, 24, 64), (24, 24, 1)])
def test_healthy_answers_are_called_unhealthy_no_more_often_than_said(spread, answers, healthy, tokens):
    random = np.random.default_rng(7)
    alpha, runs = 0.05, 400
    wrong = 0
    for _ in range(runs):
        floor = noisy(random, healthy, 64, spread=spread)
        wrong += excess(noisy(random, answers, tokens, spread=spread), floor).chance < alpha
    assert wrong / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_ranks_of_tokens_alone_would_be_wrong_more_often():
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(200):
        floor, found = noisy(random, 24, 64, spread=1.0), noisy(random, 24, 64, spread=1.0)
        told = excess(found, floor)
        wrong += chance_beyond(told.beyond, told.tokens, told.healthy) < 0.01
    assert wrong > 20


def test_ten_times_the_noise_is_found_however_much_answers_differ():
    random = np.random.default_rng(7)
    found = excess(noisy(random, 24, 64, spread=0.5, times=10), noisy(random, 24, 64, spread=0.5))
    assert found.chance < 1e-6
    assert found.beyond > 5


def test_replays_that_are_the_same_bit_for_bit_do_not_make_noise_rarer():
    noise = [[0.01], [0.02]]
    with_replays = excess([[0.03]], [[0.0] * 500 + each for each in noise])
    assert with_replays == excess([[0.03]], noise)
    assert with_replays.chance == pytest.approx(1 / 3)


def test_an_engine_without_any_noise_is_held_to_it():
    found = excess([[0.0, 1e-6]], [[0.0] * 50, [0.0] * 49])
    assert (found.beyond, found.largest, found.healthy) == (1, 0.0, 99)
    assert found.chance == pytest.approx(2 / 101)


def test_one_healthy_answer_does_not_tell_how_much_answers_differ():
    found = excess([[9.0] * 64], [np.linspace(0.01, 0.02, 500).tolist()])
    assert (found.chance, found.least) == (1.0, 1.0)


def test_one_noisy_answer_among_silent_ones_leaves_the_ranks():
    found = excess([[9.0] * 64], [[0.0] * 64, [0.0] * 64, [0.01, 0.02] * 32])
    assert found.chance == chance_beyond(64, 64, 64)


@pytest.mark.parametrize(
    ("answers", "healthy"), [([], [[0.1]]), ([[]], [[0.1]]), ([[0.1]], []), ([[0.1]], [[]]), ([], [])]
)
def test_without_numbers_there_is_no_chance(answers, healthy):
    assert (excess(answers, healthy).chance, excess(answers, healthy).least) == (None, None)
