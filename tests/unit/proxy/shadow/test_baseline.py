"""What is read of a baseline's scores and replays."""


import aiohttp
import pytest
from tests.support.acc.engines import scripted_engine

from ppd_proxy.shadow.baseline import BaselineError, Baselines, spread_of_both, tops_of
from ppd_wire.answers.candidate import Candidate
from ppd_wire.answers.scored import Position


def candidate(tokens: list[int], logprobs: list[float], tops: list[dict[str, float]] | None = None) -> Candidate:
    return Candidate(
        prompt_token_ids=[1], token_ids=tokens, logprobs=logprobs, tops=tops or [{} for _ in tokens],
        finish_reason="length", text="", tool_calls=[],
    )  # fmt: skip


def test_the_likeliest_tokens_leave_out_a_chosen_one_that_is_none() -> None:
    positions = [
        Position(-0.2, 1, 0.0, {"7": -0.2, "8": -2.0, "6": -3.0}),
        Position(-9.0, 40, 8.5, {"9": -9.0, "8": -0.5, "5": -1.5}),
    ]
    assert tops_of(positions, 2) == [
        {"token_id:7": -0.2, "token_id:8": -2.0}, {"token_id:8": -0.5, "token_id:5": -1.5},
    ]  # fmt: skip


def test_a_position_whose_own_token_has_no_number_has_no_likeliest_tokens() -> None:
    assert tops_of([Position(None, 1, None, {"8": -1.0, "5": -2.0})], 1) == [{}]


def test_the_spread_of_both_is_over_the_likeliest_tokens_that_both_named_by_id() -> None:
    theirs = [Position(-0.2, 1, 0.0, {"7": -0.2, "8": -2.0, "9": -4.0})]
    ours = candidate([7], [-0.3], [{"token_id:7": -0.3, "token_id:8": -1.6, "token_id:9": -5.0}])
    spread = spread_of_both(ours, theirs, 2)
    assert spread is not None
    assert spread.positions == 1
    assert spread.entropy_change > 0
    assert spread.divergence > 0
    by_text = candidate([7], [-0.3], [{"a": -0.3, "b": -1.6, "c": -5.0}])
    assert spread_of_both(by_text, theirs, 2) is None
    assert spread_of_both(ours, theirs, 0) is None
    assert spread_of_both(candidate([7], [-0.3]), theirs, 2) is None


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
