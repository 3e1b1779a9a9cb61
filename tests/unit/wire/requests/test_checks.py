"""The bodies by which an answer is checked on another engine."""

import msgspec

from ppd_wire.requests.checks import answer_body, replay_body, score_body


def raw(**fields):
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}


def test_a_replay_asks_for_ids_and_carries_no_stream_and_no_salt():
    body = replay_body("chat", raw(stream=True, stream_options={}, cache_salt="a", max_tokens=1))
    assert set(body) == {"max_tokens", "return_token_ids", "return_tokens_as_token_ids", "logprobs", "top_logprobs"}


def test_a_replay_of_a_completion_asks_for_logprobs_by_their_number():
    body = replay_body("completion", raw(prompt="a"))
    assert body["logprobs"] == 5
    assert "top_logprobs" not in body


def test_a_score_is_one_prefill_over_prompt_and_answer():
    assert score_body("m", [1, 2], (3,), 4) == {
        "model": "m", "prompt": [1, 2, 3], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 4,
    }  # fmt: skip


def test_an_answer_is_sampled_as_the_client_asked_and_no_more_is_taken_over():
    body = answer_body("m", [1], 7, raw(temperature=0.5, top_k=3, user="a", stop=["x"]))
    assert body == {
        "model": "m", "prompt": [1], "max_tokens": 7, "temperature": 0.5, "top_k": 3, "logprobs": 0,
        "return_token_ids": True,
    }  # fmt: skip
