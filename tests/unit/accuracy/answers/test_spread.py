"""Entropy and divergence of two engines over one answer, from their likeliest tokens."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_accuracy.answers.distributions import bucket_entropy
from ppd_accuracy.answers.spread import likeliest, spread_of

VOCABULARY = 50


def distribution(random, sharpness):
    logits = random.normal(size=VOCABULARY) * sharpness
    return logits - np.log(np.exp(logits).sum())


def top_of(logprobs, count=8):
    order = np.argsort(logprobs)[::-1][:count]
    return {f"token_id:{token}": float(logprobs[token]) for token in order}


def test_entropies_of_a_softer_candidate_grow_within_the_bounds():
    random = np.random.default_rng(1)
    baseline = [distribution(random, 3.0) for _ in range(40)]
    candidate = [each * 0.8 - np.log(np.exp(each * 0.8).sum()) for each in baseline]
    found = spread_of([top_of(each) for each in candidate], [top_of(each) for each in baseline], VOCABULARY)
    changes = [-(np.exp(one) @ one) + np.exp(other) @ other for one, other in zip(candidate, baseline, strict=True)]
    divergences = [np.exp(one) @ (one - other) for one, other in zip(candidate, baseline, strict=True)]
    assert found.positions == 40
    assert found.entropy_change > 0.1
    assert found.entropy_low <= np.mean(changes) <= found.entropy_high
    assert 0 < found.divergence <= np.mean(divergences)
    assert found.divergence <= found.largest_divergence <= max(divergences)


def test_equal_lists_have_no_change_and_no_divergence():
    tops = [{"a": math.log(0.6), "b": math.log(0.3)}]
    found = spread_of(tops, tops, VOCABULARY)
    assert (found.entropy_change, found.divergence) == (0, pytest.approx(0, abs=1e-12))
    assert found.entropy_low <= 0 <= found.entropy_high


def test_only_places_at_which_both_told_something_count():
    told, nothing = {"a": -0.1}, {}
    assert spread_of([told, nothing, told], [told, told, nothing]).positions == 1
    assert spread_of([nothing], [told]) is None


def test_the_bucket_entropy_is_that_of_the_listed_tokens_and_one_rest():
    shares = 0.5, 0.3, 0.2
    exact = -sum(share * math.log(share) for share in shares)
    assert bucket_entropy({"a": math.log(0.5), "b": math.log(0.3)}) == pytest.approx(exact)
    assert bucket_entropy({"a": 0.0}) == 0


def test_mass_that_leaves_the_list_makes_no_engine_surer():
    baseline = {str(token): math.log(share) for token, share in enumerate((0.5, 0.2, 0.1, 0.05, 0.03))}
    uniform = {str(token): -math.log(50_000) for token in range(5)}
    found = spread_of([uniform], [baseline], 50_000)
    assert found.entropy_low == found.entropy_change > 5


@given(seed=st.integers(0, 10**6), sharp=st.floats(0.1, 12), other_sharp=st.floats(0.1, 12), count=st.integers(1, 20))
def test_the_truth_is_within_the_bounds_whatever_both_engines_think(seed, sharp, other_sharp, count):
    random = np.random.default_rng(seed)
    one, other = (distribution(random, each).astype(np.float32).astype(float) for each in (sharp, other_sharp))
    found = spread_of([top_of(one, count)], [top_of(other, count)], VOCABULARY)
    change = -(np.exp(one) @ one) + np.exp(other) @ other
    assert found.entropy_low - 1e-5 <= change <= found.entropy_high + 1e-5
    assert found.entropy_low <= found.entropy_change <= found.entropy_high
    assert 0 <= found.divergence <= np.exp(one) @ (one - other) + 1e-5


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ({"x": -9.0, "a": -0.1, "b": -3.0}, {"a": -0.1, "b": -3.0}),
        ({"b": -3.0, "a": -0.1, "c": -4.0}, {"a": -0.1, "b": -3.0}),
        ({"x": -9.0, "a": -0.1}, {}),
        ({"a": -0.1, "b": math.nan, "c": -4.0}, {}),
        ({}, {}),
    ],
)
def test_the_likeliest_are_told_from_a_chosen_token_that_is_listed_too(listed, found):
    assert likeliest(listed, 2) == found
