"""Logprobs of equal tokens against the noise: a test of ranks, worked by hand and by simulation."""

import math

import numpy as np
import pytest

from ppd_proxy.accuracy.precision import chance_beyond, excess


@pytest.mark.parametrize(
    ("beyond", "tokens", "healthy"), [(0, 5, 10), (1, 5, 10), (3, 5, 10), (5, 5, 10), (2, 64, 500)]
)
def test_the_chance_is_the_share_of_orders_in_which_the_largest_are_all_tokens(beyond, tokens, healthy):
    orders = math.comb(healthy + tokens - beyond, healthy) / math.comb(healthy + tokens, healthy)
    assert chance_beyond(beyond, tokens, healthy) == pytest.approx(orders)


def test_healthy_tokens_are_called_unhealthy_no_more_often_than_said():
    random = np.random.default_rng(7)
    alpha, runs = 0.05, 2000
    found = [excess(random.exponential(size=20).tolist(), random.exponential(size=100).tolist()) for _ in range(runs)]
    share = sum(each.chance < alpha for each in found) / runs
    assert share <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_tokens_with_twice_the_noise_are_found():
    random = np.random.default_rng(7)
    found = excess((10 * random.exponential(size=64)).tolist(), random.exponential(size=500).tolist())
    assert found.chance < 1e-6
    assert found.beyond > 5


def test_replays_that_are_the_same_bit_for_bit_do_not_make_noise_rarer():
    noise = [0.01, 0.02]
    with_replays = excess([0.03], [0.0] * 1000 + noise)
    assert with_replays == excess([0.03], noise)
    assert with_replays.chance == pytest.approx(1 / 3)


def test_an_engine_without_any_noise_is_held_to_it():
    found = excess([0.0, 1e-6], [0.0] * 99)
    assert (found.beyond, found.largest, found.healthy) == (1, 0.0, 99)
    assert found.chance == pytest.approx(2 / 101)


@pytest.mark.parametrize(("deltas", "healthy"), [([], [0.1]), ([0.1], []), ([], [])])
def test_without_numbers_there_is_no_chance(deltas, healthy):
    assert (excess(deltas, healthy).chance, excess(deltas, healthy).least) == (None, None)
