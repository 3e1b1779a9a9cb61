"""Groups of divergent samples: planted ones are found, unknown values are not taken for 0."""

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_accuracy.statistics.clusters import MOST_GROUPS, group, silhouette


def planted(seed: int = 1) -> list[dict[str, float | None]]:
    """20 early with large margins, 15 late with small ones, 10 in between on long prompts."""
    generator = np.random.default_rng(seed)
    kinds = [(20, 5, 3.0, 100), (15, 300, 0.05, 100), (10, 150, 1.0, 5000)]
    return [
        {
            "position": position + generator.normal(0, 3),
            "margin": margin + generator.normal(0, 0.02),
            "prompt_tokens": prompt + generator.normal(0, 10),
        }
        for count, position, margin, prompt in kinds
        for _ in range(count)
    ]


def test_planted_groups_are_found_and_described() -> None:
    found = group(planted(), seed=0)
    assert [each.members for each in found.groups] == [
        tuple(range(20)), tuple(range(20, 35)), tuple(range(35, 45)),
    ]  # fmt: skip
    assert found.silhouette > 0.8
    features = {each.name: each for each in found.groups[0].features}
    assert features["position"].median == pytest.approx(5, abs=3)
    assert features["margin"].known == 20
    assert all(each.centre in each.members for each in found.groups)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_groups(seed: int) -> None:
    assert group(planted(), seed) == group(planted(), seed)


def test_samples_without_structure_are_one_group() -> None:
    points = np.random.default_rng(3).normal(size=(60, 6))
    found = group([{str(place): value for place, value in enumerate(row)} for row in points.tolist()], seed=0)
    assert (len(found.groups), found.silhouette) == (1, None)
    assert all(score < 0.25 for _, score in found.tried)


def test_an_unknown_margin_is_not_a_margin_of_zero() -> None:
    """Ten near ties, ten clear faults, and ten of the faults' kind whose margin nobody told."""
    samples = [{"position": 10.0 + n % 3, "margin": 0.01} for n in range(10)]
    samples += [{"position": 200.0 + n % 3, "margin": 4.0} for n in range(10)]
    samples += [{"position": 200.0 + n % 3, "margin": None} for n in range(10)]
    ties = next(each for each in group(samples, seed=0).groups if 0 in each.members)
    assert ties.members == tuple(range(10))
    unknown = next(each for each in group(samples, seed=0).groups if 25 in each.members)
    margin = next(each for each in unknown.features if each.name == "margin")
    assert margin.known in (0, 10)
    assert margin.median in (None, 4.0)


def test_what_no_sample_tells_changes_nothing() -> None:
    samples = planted()
    nothing = [{**sample, "output_tokens": None, "relative": math.nan} for sample in samples]
    assert [each.members for each in group(nothing, seed=0).groups] == [
        each.members for each in group(samples, 0).groups
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=30), st.integers(2, 4))
def test_the_silhouette_is_rousseeuws(labels: list[int], features: int) -> None:
    points = np.random.default_rng(len(labels)).normal(size=(len(labels), features))
    groups = np.array(labels)
    expected = []
    for place, label in enumerate(labels):
        apart = np.linalg.norm(points - points[place], axis=1)
        own = [each for each in np.flatnonzero(groups == label) if each != place]
        others = [apart[groups == other].mean() for other in set(labels) - {label}]
        if not others:
            expected = [0.0]
            break
        within, between = (apart[own].mean() if own else 0.0), min(others)
        expected.append((between - within) / max(within, between) if own else 0.0)
    found = silhouette(points, groups, np.random.default_rng(0))
    assert found == pytest.approx(np.mean(expected), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.floats())), max_size=15))
def test_every_sample_is_in_one_group_whatever_is_told(samples: list[dict[str, float | None]]) -> None:
    finite = [
        {k: v for k, v in each.items() if v is None or abs(v) < 1e100 or not math.isfinite(v)} for each in samples
    ]
    found = group(finite, seed=0)
    assert sorted(member for each in found.groups for member in each.members) == list(range(len(samples)))
    assert len(found.groups) <= MOST_GROUPS
    assert all(len(one.members) >= len(other.members) for one, other in pairwise(found.groups))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_number_of_groups_can_be_asked_for(count: int) -> None:
    assert len(group(planted(), seed=0, count=count).groups) == count


def test_no_more_groups_than_different_samples() -> None:
    assert len(group([{"a": 1.0}] * 10, seed=0, count=3).groups) == 1
    assert len(group([{"a": 1.0}] * 5 + [{"a": 2.0}] * 5, seed=0, count=3).groups) == 2
    assert group([], seed=0).groups == ()
    with pytest.raises(ValueError, match="count is 0"):
        group([{"a": 1.0}], seed=0, count=0)


def test_many_samples_need_no_table_of_all_distances() -> None:
    """3,000 samples: all distances would be 72 MB."""
    generator = np.random.default_rng(4)
    samples = [{name: float(n % 2) * 10 + generator.normal() for name in "ab"} for n in range(3_000)]
    tracemalloc.start()
    found = group(samples, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.groups) == 2
    assert peak < 20e6


def test_the_order_of_the_samples_changes_nothing() -> None:
    draw = np.random.default_rng(3)
    samples = [{"shift": 10.0 * (place % 3) + draw.normal(), "noise": draw.normal()} for place in range(60)]
    first = {frozenset(each.members) for each in group(samples, seed=0).groups}
    for _ in range(10):
        order = draw.permutation(60)
        moved = group([samples[place] for place in order], seed=0)
        assert {frozenset(int(order[member]) for member in each.members) for each in moved.groups} == first


def test_a_cloud_is_hardly_ever_taken_for_groups() -> None:
    """Of 20 clouds at most a few look like groups: nine even ones have to look less so."""
    several = 0
    for seed in range(20):
        cloud = np.random.default_rng(seed).normal(size=(60, 2))
        several += len(group([{"a": float(a), "b": float(b)} for a, b in cloud], seed=0).groups) > 1
    assert several <= 4
