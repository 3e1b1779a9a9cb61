"""Entropies and divergences of distributions of which only the top is known."""

import math

import numpy as np
import pytest
from scipy.spatial import distance

from ppd_proxy.accuracy.distributions import coverage, divergence, entropy, gap, jensen_shannon, total_variation

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


def shares(logprobs: dict[str, float]) -> np.ndarray:
    return np.array([math.exp(logprobs[str(token)]) for token in range(VOCABULARY)])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [1, 5, 20, VOCABULARY])
def test_the_true_total_variation_and_jensen_shannon_divergence_lie_within_their_bounds(seed: int, count: int) -> None:
    """Against numpy's sum and scipy's distance (its square is the divergence); close relatives on odd seeds."""
    one, other = full(seed), full(seed + 100)
    if seed % 2:
        mixed = 0.95 * shares(one) + 0.05 * shares(other)
        other = {str(token): math.log(share) for token, share in enumerate(mixed)}
    tops = top(one, count), top(other, count)
    variation, divergent = total_variation(*tops), jensen_shannon(*tops)
    assert variation.low - 1e-9 <= np.abs(shares(one) - shares(other)).sum() / 2 <= variation.high + 1e-9
    true = distance.jensenshannon(shares(one), shares(other)) ** 2
    assert divergent.low - 1e-9 <= true <= divergent.high + 1e-9
    if count == VOCABULARY:
        assert variation.low == pytest.approx(variation.high, abs=1e-9)
        assert divergent.low == pytest.approx(divergent.high, abs=1e-9)


def test_lists_without_a_token_in_common_bound_what_they_can() -> None:
    """0.9 on one token, which the other has at most 0.2 for (its rest): at least 0.7 apart, at most 1."""
    one, other = {"a": math.log(0.9)}, {"b": math.log(0.8)}
    assert total_variation(one, other) == pytest.approx((0.7, 1.0))
    least = distance.jensenshannon([0.9, 0.1], [0.2, 0.8]) ** 2
    assert jensen_shannon(one, other) == pytest.approx((least, math.log(2)))


def test_equal_lists_may_be_equal_and_differ_by_their_rest_at_most() -> None:
    same = {"a": math.log(0.7), "b": math.log(0.2)}
    assert total_variation(same, same) == pytest.approx((0.0, 0.1))
    assert jensen_shannon(same, same) == pytest.approx((0.0, 0.1 * math.log(2)))


def test_coverage_is_the_listed_mass() -> None:
    assert coverage({"a": math.log(0.7), "b": math.log(0.2), "c": -math.inf}) == pytest.approx(0.9)
