"""entropy: bounds for what is not listed, and paired differences."""

import json
import math

import pytest
from scipy import stats
from tests.support.acc.commands import run_command
from tests.support.acc.reports import equal, parted, published, side, written

from ppd_acc.outcome import Exit, Mistake
from ppd_acc.reports.entropies import entropy_of, series_of, shared_positions

HALVES = {"a": math.log(0.5), "b": math.log(0.5)}


def listed(tmp_path, name, *tops):
    path = tmp_path / name
    path.write_text(json.dumps(tops))
    return str(path)


async def entropy(*arguments):
    result = await run_command("entropy", *arguments)
    assert result.exit == Exit.PASS
    return result


def test_a_whole_list_has_one_value():
    told = entropy_of(HALVES, 1000, is_ranked=True)
    assert told is not None
    assert (told.low, told.high, told.bucket) == pytest.approx((math.log(2),) * 3)


def test_one_listed_token_is_not_certain_when_its_mass_is_not_one():
    """p = 0.5 and half of the mass unknown: at least one bit; at most the rest evenly over 999 tokens."""
    told = entropy_of({"a": math.log(0.5)}, 1000, is_ranked=True)
    assert told is not None
    assert told.bucket == pytest.approx(math.log(2))
    assert told.low == pytest.approx(math.log(2))
    assert told.high == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(999 / 0.5))


def test_the_truth_is_within_the_bounds():
    """A distribution over 50 tokens of which the top 5 are told."""
    weights = [1 / (rank + 1) ** 1.2 for rank in range(50)]
    shares = [weight / sum(weights) for weight in weights]
    true = float(stats.entropy(shares))
    told = entropy_of({str(rank): math.log(shares[rank]) for rank in range(5)}, 50, is_ranked=True)
    assert told is not None
    assert told.bucket <= told.low <= true <= told.high
    unranked = entropy_of({str(rank): math.log(shares[rank]) for rank in (3, 17)}, 50, is_ranked=False)
    assert unranked is not None
    assert unranked.low == unranked.bucket <= true <= unranked.high


def test_an_empty_list_is_unknown_and_a_nan_is_counted():
    told = series_of([{}, {"a": math.nan}, {"z": -math.inf, **HALVES}], 100)
    assert [each is None for each in told.positions] == [True, True, False]
    assert told.dropped == 2


async def test_paired_differences_have_students_interval(tmp_path):
    shares = [(0.9, 0.8), (0.7, 0.65), (0.95, 0.9), (0.6, 0.5)]

    def binary(share):
        return -(share * math.log(share) + (1 - share) * math.log(1 - share))

    changes = [binary(other) - binary(one) for one, other in shares]
    data = (
        await entropy(
            "--baseline-logprobs", listed(tmp_path, "b", *({"x": math.log(one)} for one, _ in shares)),
            "--target-logprobs", listed(tmp_path, "t", *({"x": math.log(other)} for _, other in shares)),
        )
    ).data["comparison"]  # fmt: skip
    expected = stats.ttest_1samp(changes, 0.0)
    assert data["unit"] == "positions"
    assert data["mean_change"] == pytest.approx(sum(changes) / 4)
    assert data["p"] == pytest.approx(expected.pvalue)
    assert data["interval"] == pytest.approx(list(expected.confidence_interval(0.95)))
    assert data["true_change_low"] <= data["mean_change"] <= data["true_change_high"]


async def test_only_positions_up_to_the_first_difference_are_paired(tmp_path):
    files = [listed(tmp_path, name, *[HALVES] * 10) for name in "bt"]
    line = ("--baseline-logprobs", files[0], "--target-logprobs", files[1])
    assert (await entropy(*line)).data["comparison"]["positions"] == 10
    result = await entropy(*line, "--divergence-index", "3", "--context-window", "1")
    assert result.data["comparison"]["positions"] == 4
    assert result.data["at"]["target"]["bucket"] == pytest.approx(math.log(2))


async def test_a_baseline_alone_is_described(tmp_path):
    result = await entropy("--baseline-logprobs", listed(tmp_path, "b", HALVES))
    assert result.data["baseline"]["low"]["mean"] == pytest.approx(math.log(2))
    assert (result.data["target"], result.data["comparison"]) == (None, None)


async def test_lists_of_other_lengths_are_cut_and_told(tmp_path):
    result = await entropy(
        "--baseline-logprobs", listed(tmp_path, "b", HALVES, HALVES),
        "--target-logprobs", listed(tmp_path, "t", HALVES),
    )  # fmt: skip
    assert result.data["comparison"]["positions"] == 1
    assert any("2 and 1 positions" in note for note in result.notes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "must be a list"),
        ("[]", "at least one"),
        ("[1]", "position 0 is int"),
        ('[{"a": "x"}]', "position 0, token 'a' is 'x'"),
        ('[{"a": true}]', "must be a number"),
        ('[{"a": -1}, {"b": 0.5}]', "position 1, token 'b' is 0.5; a logprob is 0 or less"),
        ("[", "not valid JSON"),
    ],
)
async def test_a_wrong_list_is_a_mistake_that_names_the_place(tmp_path, text, told):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(Mistake, match=told):
        await run_command("entropy", "--baseline-logprobs", str(path))


async def test_nan_and_infinity_of_pythons_json_are_read_and_counted(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"a": NaN, "b": -0.1}, {"c": -Infinity}, {"d": -0.2}, {"e": -1' + "0" * 400 + "}]")
    result = await entropy("--baseline-logprobs", str(path))
    assert (result.data["baseline"]["count"], result.data["baseline"]["dropped"]) == (2, 3)


def sample(sample_id, one, other, **fields):
    """Equal answers of ten tokens, whose first token has these probabilities."""

    def answer(share):
        tops = [{"0": math.log(share), "9": math.log((1 - share) / 2)}] * 10
        return side(range(10), tops=tops)

    return equal(sample_id, 10, baseline=answer(one), target=answer(other), **fields)


async def test_a_report_is_compared_by_samples_not_by_tokens(tmp_path):
    path = written(tmp_path, *(sample(str(n), 0.9, 0.8 - 0.02 * n) for n in range(5)))
    data = (await entropy("--report", path)).data
    assert (data["comparison"]["unit"], data["comparison"]["count"]) == ("samples", 5)
    assert data["comparison"]["positions"] == 50
    assert data["comparison"]["mean_change"] > 0.1
    assert data["comparison"]["interval"][0] > 0


async def test_without_lists_the_chosen_tokens_are_taken_and_it_is_said(tmp_path):
    result = await entropy("--report", written(tmp_path, equal("a"), parted("b", position=4)))
    assert result.data["comparison"]["positions"] == 10 + 5
    assert any("only the chosen tokens" in note for note in result.notes)


async def test_a_spread_that_no_proxy_wrote_is_left_alone(tmp_path):
    known = {"positions": 10, "entropy_change": 0.5, "entropy_low": 0.4, "entropy_high": 0.6}
    for spread, change in ((known, 0.5), ({**known, "positions": 0}, 0.0), ("wide", 0.0), ({}, 0.0)):
        path = written(tmp_path, *(equal(name, metadata={"spread": spread}) for name in "ab"))
        told = (await entropy("--report", path)).data["comparison"]
        assert told["mean_change"] == pytest.approx(change)


def test_the_first_difference_itself_has_one_context():
    assert shared_positions(parted("b", position=4)) == 5
    assert shared_positions(equal("a", 10)) == 10


async def test_a_report_without_logprobs_is_a_mistake(tmp_path):
    row = {"sample_id": 1, "prompt": "p", "baseline_output": "x", "target_output": "x", "exact_match": True}
    with pytest.raises(Mistake, match="no sample has logprobs"):
        await run_command("entropy", "--report", published(tmp_path, row))


async def test_lists_and_a_report_are_one_too_many(tmp_path):
    with pytest.raises(Mistake, match="both given"):
        await run_command("entropy", "--report", "x", "--baseline-logprobs", "y")
    with pytest.raises(Mistake, match="--baseline-logprobs is missing"):
        await run_command("entropy", "--target-logprobs", "y")
