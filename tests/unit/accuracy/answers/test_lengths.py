"""Length bias with answers cut at the token limit: scores by definition, and a bias that dropped pairs would hide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppd_accuracy.answers.lengths import LengthPair, finish_table, judge, length_bias
from ppd_accuracy.statistics.significance import mcnemar, sign_flip

REASONS = st.sampled_from(["stop", "length"])
PAIRS = st.lists(st.builds(LengthPair, st.integers(0, 8), st.integers(0, 8), REASONS, REASONS), min_size=1, max_size=12)


def generated(bias: float, count: int, limit: int, seed: int) -> list[LengthPair]:
    """Both answers of a pair share what the prompt asks for; each is cut at the limit."""
    generator = np.random.default_rng(seed)
    wanted = generator.normal(100, 40, count)
    pairs = []
    for middle in wanted:
        sides = [max(1, round(middle + shift + generator.normal(0, 10))) for shift in (0.0, bias)]
        pairs.append(
            LengthPair(*(min(each, limit) for each in sides), *("length" if each > limit else "stop" for each in sides))
        )
    return pairs


def is_surely_shorter(one: tuple[int, str], other: tuple[int, str]) -> bool:
    return one[1] == "stop" and (one[0] < other[0] or (one[0] == other[0] and other[1] == "length"))


@settings(deadline=None)
@given(PAIRS)
def test_the_score_counts_who_is_surely_shorter_and_longer(pairs: list[LengthPair]) -> None:
    sides = [(pair.baseline_tokens, pair.baseline_finish) for pair in pairs]
    sides += [(pair.target_tokens, pair.target_finish) for pair in pairs]
    scores = [
        sum(is_surely_shorter(other, one) for other in sides) - sum(is_surely_shorter(one, other) for other in sides)
        for one in sides
    ]
    differences = [scores[len(pairs) + place] - scores[place] for place in range(len(pairs))]
    found = length_bias(pairs, 0.95, seed=0)
    assert found.score_difference == pytest.approx(sum(differences) / len(pairs))
    assert found.score == sign_flip(differences, seed=0)


@settings(deadline=None)
@given(PAIRS)
def test_the_longer_one_is_told_only_where_it_is_known(pairs: list[LengthPair]) -> None:
    signs = length_bias(pairs, 0.95, seed=0).signs
    sides = [((pair[0], pair[2]), (pair[1], pair[3])) for pair in pairs]
    assert signs.target_longer == sum(is_surely_shorter(one, other) for one, other in sides)
    assert signs.target_shorter == sum(is_surely_shorter(other, one) for one, other in sides)
    assert signs.equal == sum(one == other and one[1] == "stop" for one, other in sides)
    assert signs.target_longer + signs.target_shorter + signs.equal + signs.unknown == len(pairs)
    assert signs.p == mcnemar(signs.target_longer, signs.target_shorter)


def test_without_a_cut_answer_student_judges() -> None:
    pairs = [LengthPair(10, 12, "stop", "stop"), LengthPair(20, 21, "stop", "stop"), LengthPair(30, 36, "stop", "stop")]
    found = length_bias(pairs, 0.95, seed=0)
    assert found.judged_by == "student"
    assert found.p == pytest.approx(stats.ttest_rel([12, 21, 36], [10, 20, 30]).pvalue)
    assert (found.complete.mean, found.median_difference) == (3.0, 2.0)
    assert found.flips.p == 0.25


def test_a_bias_that_only_cut_answers_show_is_found() -> None:
    """Every long answer of the target runs into the limit. The pairs without a cut side show nothing at all."""
    pairs = [LengthPair(20, 20, "stop", "stop")] * 30 + [LengthPair(40, 64, "stop", "length")] * 10
    found = length_bias(pairs, 0.95, seed=0)
    assert found.complete.p == 1.0
    assert found.judged_by == "gehan score"
    assert found.p == pytest.approx(2 / 2**10)
    assert found.score_difference > 0
    assert (found.censored, found.target_cut, found.baseline_cut) == (10, 10, 0)
    assert found.cut_p == pytest.approx(2 / 2**10)


def test_answers_cut_on_both_sides_say_nothing() -> None:
    found = length_bias([LengthPair(64, 64, "length", "length")] * 20, 0.95, seed=0)
    assert (found.signs.unknown, found.both_cut, found.p) == (20, 20, 1.0)


def test_the_score_keeps_its_error_and_finds_a_bias_through_the_limit() -> None:
    """40 % of the answers are cut. A bias of 6 tokens is found nearly always, none in about 5 % of the runs."""
    none = [length_bias(generated(0.0, 80, 110, seed), 0.95, seed).p <= 0.05 for seed in range(300)]
    assert sum(none) / 300 <= 0.05 + 0.038
    some = [length_bias(generated(6.0, 200, 110, seed), 0.95, seed).p <= 0.05 for seed in range(60)]
    assert sum(some) / 60 >= 0.8


def test_the_published_tools_characters_are_no_tokens() -> None:
    """It calls a target that spells the same tokens with longer words longer; in tokens there is no difference."""
    found = length_bias([LengthPair(5, 5, "stop", "stop")] * 10, 0.95, seed=0)
    assert found.p == 1.0
    assert found.complete.mean == 0.0


def test_finish_reasons_are_counted_in_pairs() -> None:
    pairs = [LengthPair(1, 1, "stop", "stop")] * 3 + [LengthPair(1, 1, "stop", "length"), LengthPair(1, 1)]
    assert finish_table(pairs)[0] == ("stop", "stop", 3)
    assert set(finish_table(pairs)[1:]) == {("stop", "length", 1), (None, None, 1)}


def test_no_pairs_are_no_bias_and_no_error() -> None:
    found = length_bias([], 0.95, seed=0)
    assert (found.pairs, found.p, found.median_difference, found.mean_target_tokens) == (0, 1.0, None, None)


def test_negative_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        length_bias([LengthPair(-1, 2)], 0.95, seed=0)


def test_the_direction_is_that_of_the_test_that_decided() -> None:
    """60 answers a token shorter, 40 longer by 300: the mean is longer, most of the answers are shorter."""
    pairs = [LengthPair(10 + place % 10, 9 + place % 10, "stop", "stop") for place in range(60)]
    pairs += [LengthPair(1000 * (place + 1), 1000 * (place + 1) + 300, "stop", "stop") for place in range(40)]
    bias = length_bias(pairs, 0.95, 42)
    assert bias.judged_by == "student"
    assert "the target's answers are significantly longer" in judge(bias, 0.05).reason
