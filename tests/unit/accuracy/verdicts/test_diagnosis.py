"""Which stage breaks, from what each of them did; the guide's rules, from data."""

import pytest
from scipy.stats import hypergeom, mannwhitneyu

from ppd_accuracy.verdicts.diagnosis import Conditions, StageTally, decision_guide, is_cleared, locate

CLEAN = {"prefill": "clean", "pd": "clean", "warm": "clean", "direct": "clean"}
SEEN = {
    "prefill": StageTally(real=0, at_risk=200, beyond=0, tokens=200),
    "pd": StageTally(real=4, at_risk=200, beyond=60, tokens=200),
    "decode": StageTally(real=0, at_risk=200, beyond=0, tokens=200),
}


def located(states, tallies=SEEN, **known):
    return locate({**CLEAN, **states}, tallies, Conditions(**known)).place


ALONE = {"is_prefill_alone": True}


@pytest.mark.parametrize(
    ("states", "facts", "place"),
    [
        ({}, {}, None),
        ({}, {"is_model_different": True}, "model"),
        ({"prefill": "broken", "pd": "broken", "direct": "broken"}, ALONE, "prefill"),
        ({"prefill": "broken", "pd": "broken"}, {}, "prefill, transfer or decode"),
        ({"prefill": "broken", "pd": "broken"}, {"is_kv_same": False}, "prefill or transfer"),
        ({"prefill": "broken", "pd": "broken"}, {"is_kv_same": True}, "decode"),
        ({"pd": "broken", "direct": "broken"}, ALONE, "transfer or decode"),
        ({"pd": "broken", "direct": "broken"}, {}, "decode"),
        ({"pd": "broken", "decode": "clean"}, ALONE, "transfer"),
        ({"pd": "broken", "decode": "broken"}, ALONE, "decode"),
        ({"pd": "broken"}, {"is_kv_same": False, **ALONE}, "transfer"),
        ({"pd": "broken"}, {"is_kv_same": False}, "prefill or transfer"),
        ({"pd": "broken"}, {"is_kv_same": True}, "decode"),
        ({"pd": "broken", "prefill": "inconclusive"}, {}, "prefill, transfer or decode"),
        ({"direct": "broken"}, {}, "direct"),
        ({"warm": "broken"}, {}, "cache"),
        ({"warm": "broken", "direct": "broken"}, {}, "direct"),
        ({}, {"is_kv_same": False}, "prefill or transfer"),
        ({"aggregated": "broken", "pd": "broken"}, {}, "aggregated"),
        ({"pd": "inconclusive"}, {}, None),
    ],
)
def test_the_first_stage_that_breaks_after_what_is_right_is_named(states, facts, place):
    assert located(states, **facts) == place


def test_a_first_token_that_the_decode_engine_gets_right_by_itself_is_not_its_fault():
    seen = {**SEEN, "prefill": StageTally(real=4, at_risk=8, beyond=0, tokens=4)}
    assert located({"prefill": "broken", "pd": "broken", "decode": "clean"}, seen) == "prefill or transfer"


def test_a_stage_that_saw_too_few_tokens_is_not_cleared():
    few = {**SEEN, "prefill": StageTally(real=0, at_risk=4, beyond=1, tokens=4)}
    assert located({"pd": "broken"}, few) == "prefill, transfer or decode"


def test_clearing_is_fishers_exact_test_per_token():
    suspect = StageTally(real=0, at_risk=0, beyond=0, tokens=10)
    broken = StageTally(real=0, at_risk=0, beyond=30, tokens=100)
    chance = hypergeom.cdf(0, 110, 30, 10)
    assert is_cleared(suspect, broken) == (chance < 0.05)
    assert chance < 0.05
    assert not is_cleared(StageTally(real=0, at_risk=0, beyond=0, tokens=5), broken)


def guide(states=CLEAN, **facts):
    told = {"is_divergent": False, "has_latent": False, "is_kv_same": None, "equal_lengths": [9] * 8,
            "divergent_lengths": [], **facts}  # fmt: skip
    return [advice.applies for advice in decision_guide(states, **told)]


def test_all_green_is_safe_and_nothing_else_applies():
    assert guide() == [True, False, False, False, False]


def test_a_stage_that_could_not_be_judged_is_not_green():
    assert guide({**CLEAN, "pd": "inconclusive"})[0] is False
    assert guide({})[0] is False


def test_skipped_stages_do_not_count_against_green():
    assert guide({**CLEAN, "direct": "skipped"})[0] is True


@pytest.mark.parametrize(
    ("is_kv_same", "expected"), [(True, [True, False]), (False, [False, True]), (None, [None, None])]
)
def test_divergence_is_put_down_to_decoding_or_transfer_by_the_kv_dumps(is_kv_same, expected):
    assert guide({**CLEAN, "pd": "broken"}, is_divergent=True, is_kv_same=is_kv_same)[1:3] == expected


def test_longer_prompts_that_diverge_are_found_by_their_ranks():
    equal, divergent = [10, 20, 30, 40, 50], [60, 70, 80, 90]
    assert guide(equal_lengths=equal, divergent_lengths=divergent)[3] is True
    assert mannwhitneyu(divergent, equal, alternative="greater").pvalue < 0.05
    assert guide(equal_lengths=divergent, divergent_lengths=equal)[3] is False


@pytest.mark.parametrize("lengths", [([10, 20], [30, 40]), ([10] * 9, [10] * 9)])
def test_too_few_prompts_or_one_length_say_nothing_of_length(lengths):
    assert guide(equal_lengths=lengths[0], divergent_lengths=lengths[1])[3] is None
