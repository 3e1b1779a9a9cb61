"""Kaplan-Meier and log-rank, against published figures, scipy's own and a simulation of known hazard."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppd_accuracy.statistics.survival import Watched, even_edges, hazards, kaplan_meier, survival_at

MERCAPTOPURINE = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
"""Freireich et al. 1963: weeks of remission of 21 patients, ended and (second) still going on."""
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def watched(ended: list[int], going_on: list[int]) -> list[Watched]:
    """A difference at time t is one at position t - 1."""
    return [Watched(time - 1, True) for time in ended] + [Watched(time, False) for time in going_on]


ANSWERS = st.lists(st.builds(Watched, st.integers(0, 30), st.booleans()), min_size=1, max_size=40)


def test_survival_as_published() -> None:
    """Collett, Modelling Survival Data; R's survfit gives the same: 0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448."""
    curve = kaplan_meier(watched(*MERCAPTOPURINE), 0.95)
    assert [step.position + 1 for step in curve.steps] == [6, 7, 10, 13, 16, 22, 23]
    assert [step.at_risk for step in curve.steps] == [21, 17, 15, 12, 11, 7, 6]
    survival = [step.survival for step in curve.steps]
    assert survival == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)
    assert curve.median == 22
    assert (curve.count, curve.diverged) == (21, 9)
    # survfit(conf.type = "log-log"): the first band and the median's, 13 weeks to never.
    assert curve.steps[0].interval == pytest.approx((0.6197, 0.9516), abs=5e-5)
    assert curve.median_interval == (12, None)


@settings(deadline=None)
@given(ANSWERS)
def test_survival_and_band_as_scipy_has_them(answers: list[Watched]) -> None:
    if not any(answer.is_divergent for answer in answers):
        assert kaplan_meier(answers, 0.9).steps == ()
        return
    times = np.array([answer.position + answer.is_divergent for answer in answers])
    censored = np.array([not answer.is_divergent for answer in answers])
    reference = stats.ecdf(stats.CensoredData.right_censored(times, censored)).sf
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns where everything has diverged
        low, high = reference.confidence_interval(0.9, method="log-log")
    for step in kaplan_meier(answers, 0.9).steps:
        place = reference.quantiles.tolist().index(step.position + 1)
        assert step.survival == pytest.approx(reference.probabilities[place], abs=1e-12)
        if step.interval:
            assert step.interval == pytest.approx((low.probabilities[place], high.probabilities[place]))


def test_equal_answers_count_as_equal_up_to_their_length_only() -> None:
    """One of two diverges at token 5. The other ended after 5 tokens (0 to 4): nobody was at risk beside it."""
    early = kaplan_meier([Watched(5, True), Watched(5, False)], 0.95)
    assert early.steps[0].at_risk == 1
    late = kaplan_meier([Watched(5, True), Watched(6, False)], 0.95)
    assert (late.steps[0].at_risk, late.steps[0].survival) == (2, 0.5)


def test_a_constant_hazard_is_found_whatever_the_answers_lengths() -> None:
    """Divergence with 2 % a token; lengths from 10 to 200. The histogram of positions alone falls with the lengths."""
    generator = np.random.default_rng(7)
    diverge, length = generator.geometric(0.02, 4000) - 1, generator.integers(10, 200, 4000)
    answers = [Watched(int(min(at, tokens)), bool(at < tokens)) for at, tokens in zip(diverge, length, strict=True)]
    for hazard in hazards(answers, (0, 20, 40, 80, 120, 200), 0.999):
        assert hazard.interval.low <= 0.02 <= hazard.interval.high
    curve = kaplan_meier(answers, 0.95)
    assert curve.median == pytest.approx(math.log(0.5) / math.log(0.98) - 1, abs=2)
    assert survival_at(curve, 49) == pytest.approx(0.98**50, abs=0.03)


def test_hazards_count_every_compared_token_once() -> None:
    """Differences at 0 and 4, an equal answer of 6 tokens: 1 + 5 + 6 compared tokens."""
    answers = [Watched(0, True), Watched(4, True), Watched(6, False)]
    found = hazards(answers, (0, 3, 6, 9), 0.95)
    assert [each.exposure_tokens for each in found] == [7, 5, 0]
    assert [each.diverged for each in found] == [1, 1, 0]
    assert found[0].hazard == pytest.approx(1 / 7)
    assert found[2].hazard is None


@settings(deadline=None)
@given(ANSWERS, st.integers(1, 6))
def test_even_bins_hold_every_divergence(answers: list[Watched], bins: int) -> None:
    edges = even_edges(answers, bins)
    found = hazards(answers, edges, 0.95)
    assert len(found) <= bins
    assert sum(each.diverged for each in found) == sum(answer.is_divergent for answer in answers)
    compared = sum(answer.position + answer.is_divergent for answer in answers)
    assert sum(each.exposure_tokens for each in found) == compared


def test_where_nothing_diverged_there_is_no_median() -> None:
    assert kaplan_meier([Watched(10, False)] * 5, 0.95).median is None


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="position is -1"):
        kaplan_meier([Watched(-1, True)], 0.95)
    with pytest.raises(ValueError, match="edges"):
        hazards([Watched(1, True)], (3, 3), 0.95)
