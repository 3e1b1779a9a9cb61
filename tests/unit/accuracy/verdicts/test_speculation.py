import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_accuracy.verdicts import speculation
from ppd_accuracy.verdicts.speculation import MIN_DRAFTS, drop, figures
from ppd_wire.metrics.spec_counters import SpecCounters

ALPHA = 0.01


def counters(accepted, positions=3):
    """From the number of accepted tokens of each draft."""
    per_position = tuple(sum(n > at for n in accepted) for at in range(positions))
    return SpecCounters(len(accepted), positions * len(accepted), sum(accepted), per_position)


def drafts(shares, count):
    """`shares[i]` of `count` drafts had `i` tokens accepted."""
    of_length = [round(share * count) for share in shares]
    per_position = tuple(sum(of_length[at:]) for at in range(1, len(shares)))
    total = sum(of_length)
    return SpecCounters(total, (len(shares) - 1) * total, sum(per_position), per_position)


def drawn(source, chance, count, positions=3):
    """Each next token is accepted with the same chance."""
    accepted = []
    for _ in range(count):
        n = 0
        while n < positions and source.random() < chance:
            n += 1
        accepted.append(n)
    return counters(accepted, positions)


GOOD, BAD = (0.2, 0.2, 0.3, 0.3), (0.4, 0.3, 0.2, 0.1)


# Figures


def test_figures_are_those_that_vllm_logs():
    told = figures(SpecCounters(drafts=10, draft_tokens=30, accepted_tokens=14, per_position=(8, 5, 1)))
    assert told.acceptance_length == pytest.approx(2.4)
    assert told.acceptance_rate == pytest.approx(14 / 30)
    assert told.per_position == pytest.approx((0.8, 0.5, 0.1))


def test_without_drafts_there_are_no_figures():
    assert figures(SpecCounters()) is None
    assert figures(SpecCounters(0, 0, 0, (0, 0))) is None


# The moments that the test stands on


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60))
def test_counts_per_position_give_the_exact_distribution(accepted):
    """With one draft spread over all lengths added, as the docstring says."""
    counted = counters(accepted, 4)
    mean, variance = speculation._moments(counted.drafts, counted.per_position)
    assert mean == pytest.approx(sum(accepted) / len(accepted))
    weighted = [(n, 1.0) for n in accepted] + [(n, 0.2) for n in range(5)]
    total = sum(weight for _, weight in weighted)
    centre = sum(n * weight for n, weight in weighted) / total
    assert variance == pytest.approx(sum(weight * (n - centre) ** 2 for n, weight in weighted) / total)


# Verdicts


def test_an_acceptance_that_fell_is_noticed():
    told = drop(drafts(BAD, 400), drafts(GOOD, 400), ALPHA)
    assert told.verdict == "dropped"
    assert told.difference == pytest.approx(1.0 - 1.7)
    assert told.low < told.difference < told.high < 0
    assert told.p_value < ALPHA
    assert told.drafts_needed is None


def test_an_acceptance_that_rose_has_held():
    told = drop(drafts(GOOD, 400), drafts(BAD, 400), ALPHA)
    assert told.verdict == "held"
    assert told.p_value > 1 - ALPHA


def test_a_sure_but_tiny_drop_has_held():
    many = 10_000_000
    slightly_less = (0.21, 0.19, 0.3, 0.3)
    told = drop(drafts(slightly_less, many), drafts(GOOD, many), ALPHA)
    assert (told.verdict, told.p_value < ALPHA) == ("held", True)


def test_equal_engines_are_unknown_until_there_are_drafts_enough():
    few, many = drafts(GOOD, 100), drafts(GOOD, 100_000)
    assert drop(few, few, ALPHA).verdict == "unknown"
    assert drop(many, many, ALPHA).verdict == "held"


def test_as_many_drafts_as_are_said_to_be_needed_do_decide():
    few = drop(drafts(GOOD, 100), drafts(GOOD, 100), ALPHA)
    enough = 100 + few.drafts_needed
    assert drop(drafts(GOOD, enough), drafts(GOOD, enough), ALPHA).verdict == "held"
    lower = (0.25, 0.25, 0.25, 0.25)
    few = drop(drafts(lower, 100), drafts(GOOD, 100), ALPHA)
    assert few.verdict == "unknown"
    assert drop(drafts(lower, 100 + few.drafts_needed), drafts(GOOD, 100 + few.drafts_needed), ALPHA).verdict == (
        "dropped"
    )


def test_a_small_baseline_makes_it_unknown_however_much_the_candidate_drafts():
    assert drop(drafts(BAD, 1_000_000), drafts(GOOD, MIN_DRAFTS - 10), ALPHA).verdict == "unknown"


def test_a_few_drafts_never_decide_however_clear_they_look():
    told = drop(counters([0] * 10), counters([3] * 10), ALPHA)
    assert (told.verdict, told.drafts_needed) == ("unknown", MIN_DRAFTS - 10)


@pytest.mark.parametrize("empty", [SpecCounters(0, 0, 0, (0, 0, 0)), SpecCounters(per_position=(0, 0, 0))])
def test_without_drafts_nothing_is_said(empty):
    told = drop(drafts(GOOD, 100), empty, ALPHA)
    assert (told.verdict, told.difference, told.drafts_needed) == ("unknown", None, MIN_DRAFTS)


def test_without_positions_nothing_is_said():
    told = drop(SpecCounters(100, 300, 140), drafts(GOOD, 100), ALPHA)
    assert (told.verdict, told.drafts_needed) == ("unknown", None)


def test_drafts_that_all_went_the_same_way_are_not_certain():
    told = drop(counters([3] * 60), counters([3] * 60), ALPHA)
    assert told.low < 0 < told.high


def test_engines_that_draft_another_number_of_tokens_are_compared_where_both_draft():
    short = drop(drafts((0.2, 0.2, 0.6), 100_000), drafts(GOOD, 100_000), ALPHA)
    assert short.difference == pytest.approx(0)
    assert short.verdict == "held"


def test_a_reading_between_two_increments_does_not_disturb():
    torn = SpecCounters(100, 300, 140, (80, 81, 101))
    assert drop(torn, torn, ALPHA).difference == 0


@pytest.mark.parametrize("chance", [0.2, 0.6, 0.9])
def test_equal_engines_are_seldom_called_dropped(chance):
    source = random.Random(7)
    looks = 400
    wrong = sum(
        drop(drawn(source, chance, 150), drawn(source, chance, 90), 0.05, least_drop=1e-9).verdict == "dropped"
        for _ in range(looks)
    )
    assert wrong <= 0.08 * looks  # 5 % are expected; 8 % are 2.8 standard errors more


# Drafts that are alike


def alike(source, windows, per_request):
    """Windows of ten requests each; all drafts of a request are accepted alike."""
    return [
        counters([n for _ in range(10) for n in [source.choice((0, 1, 2, 3))] * per_request]) for _ in range(windows)
    ]


def test_drafts_that_are_alike_within_a_request_widen_the_interval():
    source = random.Random(3)
    effect = speculation.design_effect(alike(source, 200, 20))
    assert 15 < effect < 26
    one, other = drafts(BAD, 400), drafts(GOOD, 400)
    narrow, wide = drop(one, other, ALPHA), drop(one, other, ALPHA, design_effect=effect)
    assert (wide.high - wide.low) == pytest.approx(effect**0.5 * (narrow.high - narrow.low))
    assert wide.verdict == "unknown"


def test_independent_drafts_have_no_design_effect():
    source = random.Random(3)
    assert speculation.design_effect([drawn(source, 0.6, 100) for _ in range(200)]) < 1.3
    assert speculation.design_effect([]) == speculation.design_effect([drafts(GOOD, 100)]) == 1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"alpha": 0}, "alpha is 0"),
        ({"alpha": 0.5}, "alpha is 0.5"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"least_drop": 0}, "least_drop is 0"),
        ({"design_effect": 0.9}, "design_effect is 0.9"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, name):
    with pytest.raises(ValueError, match=name):
        drop(drafts(GOOD, 100), drafts(GOOD, 100), **{"alpha": ALPHA} | options)


lists = st.lists(st.integers(0, 4), min_size=1, max_size=200)


@settings(deadline=None)
@given(lists, lists, st.floats(0.001, 0.2))
def test_a_verdict_agrees_with_its_interval(one, other, alpha):
    told = drop(counters(one, 4), counters(other, 4), alpha)
    assert told.low <= told.difference <= told.high
    assert 0 <= told.p_value <= 1
    assert (told.verdict == "unknown") == (told.drafts_needed is not None)
    if told.verdict == "dropped":
        assert told.high < 0
    if told.verdict == "held":
        assert told.low > -speculation.LEAST_DROP
