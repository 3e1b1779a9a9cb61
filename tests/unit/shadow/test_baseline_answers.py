"""What is read of a baseline's scores and replays."""

import math

import pytest
from tests.unit.shadow.test_sample import sample

from ppd_proxy.core.candidate import Candidate
from ppd_proxy.shadow.baseline import read_positions, scores_of
from ppd_proxy.shadow.replay import difference_of, replay_body, scores_of_replay


def candidate(tokens: list[int], logprobs: list[float], tops: list[dict[str, float]] | None = None) -> Candidate:
    return Candidate(
        prompt_token_ids=[1], token_ids=tokens, logprobs=logprobs, tops=tops or [{} for _ in tokens],
        finish_reason="length", text="", tool_calls=[],
    )  # fmt: skip


def test_logprob_rank_and_margin_come_from_each_position() -> None:
    positions = [
        {"7": {"logprob": -0.2, "rank": 1}},
        {"9": {"logprob": -2.0, "rank": 3}, "8": {"logprob": -0.5, "rank": 1}},
    ]
    logprobs, ranks, margins = read_positions(positions, [7, 9])
    assert (logprobs, ranks, margins) == ([-0.2, -2.0], [1, 3], [0.0, 1.5])


def test_a_logprob_that_is_no_number_stays_none() -> None:
    logprobs, _, margins = read_positions([{"7": {"logprob": None, "rank": 1}}], [7])
    assert math.isnan(logprobs[0])
    assert math.isnan(margins[0])
    scores = scores_of(candidate([7], [-0.1]), (logprobs, [math.nan], margins))
    assert math.isnan(scores.baseline[0])


@pytest.mark.parametrize("positions", [[], [None], [{"8": {"logprob": -1.0}}]])
def test_positions_that_do_not_fit_the_answer_are_refused(positions: list[object]) -> None:
    with pytest.raises((ValueError, KeyError)):
        read_positions(positions, [7])


def test_a_replay_is_compared_up_to_its_first_difference() -> None:
    ours = candidate([1, 2, 3, 4], [-0.1, -0.2, -0.3, -0.4])
    other = candidate([1, 2, 9, 4], [-0.1, -0.25, -0.2, -0.1], [{}, {}, {"token_id:9": -0.2, "token_id:3": -0.9}, {}])
    difference = difference_of(ours, other)
    scores = scores_of_replay(ours, other, difference)
    assert scores.baseline.tolist() == [-0.1, -0.25, -0.9]
    assert scores.margin.tolist() == pytest.approx([0.0, 0.0, 0.7])
    assert scores.rank.tolist() == [1, 1, 2]


def test_a_token_that_the_baseline_does_not_list_is_at_most_as_likely_as_the_least_listed() -> None:
    ours, other = candidate([3], [-0.3]), candidate([9], [-0.2], [{"token_id:9": -0.2, "token_id:5": -4.0}])
    scores = scores_of_replay(ours, other, difference_of(ours, other))
    assert scores.baseline[0] == -4.0
    assert scores.margin[0] == pytest.approx(3.8)


def test_equal_replays_have_no_margin() -> None:
    ours = candidate([1, 2], [-0.1, -0.2])
    scores = scores_of_replay(ours, ours, difference_of(ours, ours))
    assert scores.margin.max() == 0


def test_a_replay_asks_for_ids_and_carries_no_stream_and_no_salt() -> None:
    import msgspec

    raw = {name: msgspec.Raw(b"1") for name in ("stream", "stream_options", "cache_salt", "max_tokens")}
    body = replay_body(sample(fields=raw, kind="chat"))
    assert set(body) == {"max_tokens", "return_token_ids", "return_tokens_as_token_ids", "logprobs", "top_logprobs"}
