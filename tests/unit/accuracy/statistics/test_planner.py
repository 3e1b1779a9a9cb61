"""Sample sizes: published ones, and powers against simulation of the very tests that will be made."""

import math
from functools import cache

import numpy as np
import pytest

from ppd_accuracy.statistics.planner import mean_samples, paired_power, paired_samples, unpaired_samples
from ppd_accuracy.statistics.significance import fisher, mcnemar

RUNS = 2000
NOISE = 4 * math.sqrt(0.25 / RUNS)
"""Four standard errors of a simulated share."""


@pytest.mark.parametrize(("samples", "one", "other"), [(100, 0.12, 0.02), (300, 0.05, 0.01), (40, 0.3, 0.0)])
def test_paired_power_is_how_often_mcnemar_finds_it(samples: int, one: float, other: float) -> None:
    drawn = np.random.default_rng(2).multinomial(samples, [one, other, 1 - one - other], RUNS).tolist()
    tested = cache(lambda first, second: mcnemar(first, second) <= 0.05 and first > second)
    found = sum(tested(first, second) for first, second, _ in drawn)
    assert paired_power(samples, one, other, 0.05) == pytest.approx(found / RUNS, abs=NOISE)


def test_pairs_that_all_go_one_way_need_six_discordant_ones() -> None:
    """2 / 2^6 is the first below 0.05: of certain harm, 6 pairs; of harm in every tenth, 6 or more of n binomial."""
    assert paired_samples(1.0, 0.0, 0.05) == 6
    needed = paired_samples(0.1, 0.0, 0.05)
    below_six = [
        sum(math.comb(count, k) * 0.1**k * 0.9 ** (count - k) for k in range(6)) for count in (needed, needed - 1)
    ]
    assert below_six[0] <= 0.2 < below_six[1]


@pytest.mark.parametrize(("rate", "other", "published"), [(0.05, 0.15, 160), (0.2, 0.4, 91), (0.5, 0.7, 103)])
def test_unpaired_samples_as_published(rate: float, other: float, published: int) -> None:
    """Fleiss, Levin and Paik 2003, table A.4 (alpha 0.05, power 0.80)."""
    assert unpaired_samples(rate, other, 0.05) == pytest.approx(published, abs=1)
    assert unpaired_samples(other, rate, 0.05) == unpaired_samples(rate, other, 0.05)


def test_unpaired_samples_give_fisher_about_the_power_asked_for() -> None:
    samples = unpaired_samples(0.05, 0.15, 0.05)
    drawn = np.random.default_rng(3).binomial(samples, [0.05, 0.15], (RUNS, 2)).tolist()
    tested = cache(lambda one, other: fisher(one, samples, other, samples) <= 0.05 and other > one)
    found = sum(tested(one, other) for one, other in drawn)
    assert found / RUNS == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(("effect", "published"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_samples_of_a_mean_as_published(effect: float, published: int) -> None:
    """Cohen's small, medium and large effect in a paired t test: G*Power 3 and R's power.t.test."""
    assert mean_samples(effect, 0.05) == mean_samples(-effect, 0.05) == published


def test_no_effect_is_never_found() -> None:
    assert mean_samples(0.0, 0.05) is None
    with pytest.raises(ValueError, match="effect is nan"):
        mean_samples(math.nan, 0.05)


def test_equal_rates_are_never_told_apart() -> None:
    assert paired_samples(0.05, 0.05, 0.05) is None
    assert unpaired_samples(0.05, 0.05, 0.05) is None


def test_what_takes_a_million_samples_is_none() -> None:
    assert unpaired_samples(0.05, 0.0500001, 0.05) is None


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        unpaired_samples(rate, 0.05, 0.05)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        paired_samples(rate, 0.0, 0.05)
    with pytest.raises(ValueError, match="more than all pairs"):
        paired_samples(0.6, 0.5, 0.05)
