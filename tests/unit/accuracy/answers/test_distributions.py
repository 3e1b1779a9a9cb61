"""Entropies and divergences of distributions of which only the top is known."""

import math

import numpy as np
import pytest

from ppd_accuracy.answers.distributions import divergence, entropy, gap

VOCABULARY = 50


def full(seed: int) -> dict[str, float]:
    weights = np.random.default_rng(seed).dirichlet(np.full(VOCABULARY, 0.3))
    return {str(token): math.log(max(weight, 1e-300)) for token, weight in enumerate(weights)}


def top(logprobs: dict[str, float], count: int) -> dict[str, float]:
    return dict(sorted(logprobs.items(), key=lambda each: -each[1])[:count])


def true_entropy(logprobs: dict[str, float]) -> float:
    return -sum(math.exp(each) * each for each in logprobs.values())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [1, 5, 20, VOCABULARY])
def test_the_true_entropy_lies_within_its_bounds(seed: int, count: int) -> None:
    logprobs = full(seed)
    bounds = entropy(top(logprobs, count), VOCABULARY)
    assert bounds.low - 1e-6 <= true_entropy(logprobs) <= bounds.high + 1e-6


def test_a_list_of_everything_leaves_no_doubt() -> None:
    bounds = entropy({"a": math.log(0.5), "b": math.log(0.5)}, 2)
    assert bounds == pytest.approx((math.log(2), math.log(2)))


def test_one_listed_token_does_not_mean_no_entropy() -> None:
    bounds = entropy({"a": math.log(0.5)}, 1000)
    assert bounds.low >= math.log(2) - 1e-9
    assert bounds.high > 3


def test_a_gap_has_bounds_too() -> None:
    one, other = full(1), full(2)
    bounds = gap(top(one, 5), top(other, 5), VOCABULARY)
    assert bounds.low <= true_entropy(one) - true_entropy(other) <= bounds.high


@pytest.mark.parametrize("seed", range(10))
def test_divergence_of_tops_is_at_most_the_true_one(seed: int) -> None:
    one, other = full(seed), full(seed + 100)
    true = sum(math.exp(one[token]) * (one[token] - other[token]) for token in one)
    assert 0 <= divergence(top(one, 5), top(other, 5)) <= true + 1e-6
    assert divergence(one, one) == 0


def test_a_single_listed_token_still_diverges() -> None:
    """The published tool finds 0 here: it drops the rest."""
    found = divergence({"a": math.log(0.5)}, {"a": math.log(0.99)})
    assert found == pytest.approx(0.5 * math.log(0.5 / 0.99) + 0.5 * math.log(0.5 / 0.01))


def test_a_sure_engine_whose_rest_is_rounded_away_is_not_infinitely_far():
    sure, nearly = {"a": 0.0}, {"a": math.log1p(-1e-5)}
    assert 0 < divergence(nearly, sure) < 1e-4
    assert 0 <= divergence(sure, nearly) < 1e-4


def test_what_the_other_one_lists_as_impossible_is_infinitely_far():
    assert divergence({"a": -0.7, "b": -0.7}, {"a": 0.0, "b": -9999.0}) == math.inf
