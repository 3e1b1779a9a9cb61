"""What is read of a baseline's scores and replays."""

import math

import aiohttp
import pytest
from tests.support.acc.engines import scripted_engine
from tests.unit.proxy.shadow.test_sample import sample

from ppd_proxy.shadow.baseline import BaselineError, Baselines, Told, read_positions, scores_of, spread_of_both
from ppd_proxy.shadow.replay import difference_of, replay_body, scores_of_replay
from ppd_wire.answers.candidate import Candidate


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
    assert read_positions(positions, [7, 9]) == Told([-0.2, -2.0], [1, 3], [0.0, 1.5], [])


def test_the_likeliest_tokens_leave_out_a_chosen_one_that_is_none() -> None:
    positions = [
        {"7": {"logprob": -0.2, "rank": 1}, "8": {"logprob": -2.0, "rank": 2}, "6": {"logprob": -3.0, "rank": 3}},
        {"9": {"logprob": -9.0, "rank": 40}, "8": {"logprob": -0.5, "rank": 1}, "5": {"logprob": -1.5, "rank": 2}},
    ]
    assert read_positions(positions, [7, 9], 2).tops == [
        {"token_id:7": -0.2, "token_id:8": -2.0}, {"token_id:8": -0.5, "token_id:5": -1.5},
    ]  # fmt: skip


def test_the_spread_of_both_is_over_the_likeliest_tokens_that_both_named_by_id() -> None:
    told = Told([-0.2], [1], [0.0], [{"token_id:7": -0.2, "token_id:8": -2.0}])
    ours = candidate([7], [-0.3], [{"token_id:7": -0.3, "token_id:8": -1.6, "token_id:9": -5.0}])
    spread = spread_of_both(ours, told, 2)
    assert spread is not None
    assert spread.positions == 1
    assert spread.entropy_change > 0
    assert spread.divergence > 0
    by_text = candidate([7], [-0.3], [{"a": -0.3, "b": -1.6, "c": -5.0}])
    assert spread_of_both(by_text, told, 2) is None
    assert spread_of_both(ours, Told([-0.2], [1], [0.0], []), 0) is None
    assert spread_of_both(candidate([7], [-0.3]), told, 2) is None


def test_a_logprob_that_is_no_number_stays_none() -> None:
    told = read_positions([{"7": {"logprob": None, "rank": 1}, "8": {"logprob": -1.0, "rank": 2}}], [7], 1)
    assert math.isnan(told.logprobs[0])
    assert math.isnan(told.margins[0])
    assert told.tops == [{}]
    scores = scores_of(candidate([7], [-0.1]), told._replace(ranks=[math.nan]))
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


@pytest.mark.parametrize("token_ids", [None, []])
async def test_a_baseline_that_tells_no_token_ids_is_not_compared_by_names(token_ids: list[int] | None) -> None:
    """Whatever its tokens are called: the sample is unscorable then, not equal."""
    content = [{"token": "\ufffd", "logprob": -0.1, "bytes": [229]}] if token_ids is None else []
    choice = {
        "index": 0, "message": {"role": "assistant", "content": "x"}, "logprobs": {"content": content},
        "finish_reason": "stop", "token_ids": token_ids,
    }  # fmt: skip
    async with scripted_engine(lambda _: {"id": "a", "choices": [choice]}) as url, aiohttp.ClientSession() as session:
        baselines = Baselines(session, [url], timeout_s=5.0, key=None)
        with pytest.raises(BaselineError, match="without token ids") as raised:
            await baselines.generate("/v1/chat/completions", "chat", {"messages": []})
    assert raised.value.reason == "bad_answer"
