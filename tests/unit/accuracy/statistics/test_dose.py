"""The statistical bisection: its fit by definition, its interval by simulation, its design by playing it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from ppd_accuracy.statistics import dose as module
from ppd_accuracy.statistics.dose import Design, Next, Tried, fit, merge, monotone, next_dose

LADDER = (64, 256, 1024, 4096)


def logistic(dose: float, centre: float, slope: float) -> float:
    return 1 / (1 + math.exp(-slope * math.log(dose / centre)))


def played(design: Design, chance, seed: int) -> tuple[list[Tried], Next]:
    """A bisection to its end."""
    generator = np.random.default_rng(seed)
    tried: list[Tried] = []
    while (step := next_dose(tried, design, seed)).dose is not None:
        assert design.lowest <= step.dose <= design.highest
        tried.append(Tried(step.dose, design.repeats, int(generator.binomial(design.repeats, chance(step.dose)))))
    assert sum(each.runs for each in tried) <= design.most_runs
    return tried, step


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=4).filter(lambda hits: sum(hits) > 0))
def test_the_fit_solves_firths_equations(hits: list[int]) -> None:
    """Firth 1993: sum of (y - p + h (1/2 - p)) x over all runs is 0, with h the leverages. None of this is ours."""
    found = fit([Tried(dose, 6, count) for dose, count in zip(LADDER, hits, strict=True)], 0.5, 0.95, seed=0)
    design = np.repeat([[1.0, math.log(dose)] for dose in LADDER], 6, axis=0)
    outcomes = np.concatenate([[1.0] * count + [0.0] * (6 - count) for count in hits])
    chances = np.array([found.chance(math.exp(row[1])) for row in design])
    weights = chances * (1 - chances)
    information = design.T @ (design * weights[:, None])
    leverages = weights * np.einsum("ij,jk,ik->i", design, np.linalg.inv(information), design)
    scores = design.T @ (outcomes - chances + leverages * (0.5 - chances))
    # In standard errors: a score of that size moves the estimate by next to nothing.
    assert math.sqrt(max(0.0, scores @ np.linalg.inv(information) @ scores)) < 1e-3


def test_a_clean_cut_has_a_finite_fit_in_the_middle() -> None:
    """Without the penalty the slope would be infinite. By symmetry it is the geometric mean."""
    found = fit([Tried(25, 5, 0), Tried(100, 5, 0), Tried(400, 5, 5), Tried(1600, 5, 5)], 0.5, 0.95, seed=0)
    assert found.dose == pytest.approx(200, rel=1e-3)
    assert 100 < found.low < 200 < found.high < 400
    assert found.low * found.high == pytest.approx(200**2, rel=1e-2)
    assert found.dependence_p < 1e-3
    assert found.monotone_p == 1.0


def test_another_target_lies_elsewhere_on_the_same_curve() -> None:
    tried = [Tried(dose, 20, hits) for dose, hits in zip(LADDER, (1, 6, 13, 19), strict=True)]
    half, tenth = fit(tried, 0.5, 0.95, seed=0), fit(tried, 0.1, 0.95, seed=0)
    assert half.chance(half.dose) == pytest.approx(0.5)
    assert half.chance(tenth.dose) == pytest.approx(0.1)
    assert tenth.high < half.high


def test_a_chance_that_does_not_depend_on_the_dose_has_no_interval() -> None:
    found = fit([Tried(dose, 10, 3) for dose in LADDER], 0.5, 0.95, seed=0)
    assert found.dependence_p > 0.9
    assert (found.low, found.high) == (None, None)
    falling = fit([Tried(dose, 10, hits) for dose, hits in zip(LADDER, (9, 6, 3, 1), strict=True)], 0.5, 0.95, seed=0)
    assert falling.dose is None
    assert falling.monotone_p < 0.05


def test_a_threshold_beyond_what_was_tried_is_called_that() -> None:
    found = fit([Tried(dose, 20, hits) for dose, hits in zip(LADDER, (0, 0, 1, 4), strict=True)], 0.5, 0.95, seed=0)
    assert found.is_extrapolated
    assert found.dose > 4096


def test_the_interval_covers_the_true_dose() -> None:
    generator, covered, count = np.random.default_rng(5), 0, 120
    for number in range(count):
        tried = [Tried(dose, 8, int(generator.binomial(8, logistic(dose, 600, 1.2)))) for dose in LADDER]
        found = fit(tried, 0.5, 0.95, number)
        covered += (found.low or 0) <= 600 <= (found.high or math.inf)
    assert covered / count >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / count)


def test_shares_that_fall_by_more_than_chance_are_no_threshold() -> None:
    """A fault at one dose, as at a block boundary. Rising shares are no warning, nor is a dip by chance."""
    assert monotone([Tried(64, 8, 0), Tried(256, 8, 8), Tried(1024, 8, 0), Tried(4096, 8, 0)], seed=0) < 0.01
    assert monotone([Tried(64, 8, 0), Tried(256, 8, 3), Tried(1024, 8, 3), Tried(4096, 8, 8)], seed=0) == 1.0
    assert monotone([Tried(64, 8, 2), Tried(256, 8, 4), Tried(1024, 8, 3), Tried(4096, 8, 5)], seed=0) > 0.3


def test_the_warning_keeps_its_error() -> None:
    generator, count = np.random.default_rng(6), 400
    warned = [
        monotone([Tried(dose, 8, int(generator.binomial(8, 0.3))) for dose in LADDER], seed, draws=300) <= 0.05
        for seed in range(count)
    ]
    assert sum(warned) / count <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=8))
def test_the_rising_shares_are_scipys_isotonic_regression(rows: list[tuple[int, int]]) -> None:
    runs = np.array([hits + misses for hits, misses in rows])
    hits = np.array([hits for hits, _ in rows])
    expected = optimize.isotonic_regression(hits / runs, weights=runs).x
    assert module._rising(hits[None, :], runs)[0] == pytest.approx(expected)


def test_a_sharp_threshold_is_found_to_the_token() -> None:
    tried, step = played(Design(lowest=16, highest=16384, precision=1.0001), lambda dose: float(dose >= 1000), seed=1)
    assert step.reason == "neighbouring doses differ completely"
    doses = [each.dose for each in tried]
    assert {999, 1000} <= set(doses)
    assert len(doses) <= 5 + 14  # the ladder, and halving 2048 to 512


def test_a_soft_threshold_is_found_within_its_interval() -> None:
    inside, runs = 0, 0
    for seed in range(6):
        tried, _ = played(Design(lowest=16, highest=16384, precision=1.5), lambda dose: logistic(dose, 3000, 4), seed)
        found = fit(tried, 0.5, 0.95, seed)
        inside += (found.low or 0) <= 3000 <= (found.high or math.inf)
        runs += sum(each.runs for each in tried)
    assert inside >= 4
    assert runs / 6 < 120


@pytest.mark.parametrize(
    ("chance", "reason"),
    [
        (lambda dose: 0.0, "nothing diverged up to 16384"),
        (lambda dose: 1.0, "everything diverged from 16 on"),
        (lambda dose: float(dose == 512), "the shares do not rise with the dose: there is no threshold"),
    ],
)
def test_a_bisection_without_a_threshold_ends_after_the_ladder(chance, reason: str) -> None:
    tried, step = played(Design(lowest=16, highest=16384), chance, seed=1)
    assert step.reason == reason
    assert [each.dose for each in tried] == [16384, 16, 91, 512, 2896]


def test_rows_of_one_dose_are_added_up() -> None:
    assert merge([Tried(5, 2, 1), Tried(3, 1, 0), Tried(5, 3, 3), Tried(9, 0, 0)]) == (Tried(3, 1, 0), Tried(5, 5, 4))
    assert fit([Tried(5, 2, 1)], 0.5, 0.95, seed=0) is None


@pytest.mark.parametrize("row", [Tried(0, 1, 1), Tried(math.nan, 1, 1), Tried(5, 1, 2), Tried(5, 1, -1)])
def test_what_cannot_be_is_refused(row: Tried) -> None:
    with pytest.raises(ValueError, match="must be"):
        merge([row])
    with pytest.raises(ValueError, match="must be"):
        Design(lowest=5, highest=5)
    with pytest.raises(ValueError, match="must be"):
        fit([Tried(5, 1, 0)], 1.0, 0.95, seed=0)
