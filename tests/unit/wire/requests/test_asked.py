"""What the decode leg asks for beyond the client's wishes, and which requests can be scored."""

import json

import pytest

from ppd_wire.requests.asked import IDS, NOTHING, Asked, asked, is_scorable, is_transparent
from ppd_wire.requests.generation import parse

ALL = Asked(True, True)
LOGPROBS = Asked(False, True)
TOOLS = [{"type": "function", "function": {"name": "f"}}]
STREAM = {"stream": True}


def completion(**fields):
    return parse("completion", json.dumps({"prompt": "hi", **fields}).encode())


def chat(**fields):
    return parse("chat", json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode())


def sampled(request):
    return asked(request, is_sampled=True)


def test_a_prompt_of_token_ids_asks_for_the_answers_ids():
    for request, expected in (
        (completion(prompt=[1, 2]), IDS),
        (completion(prompt=[1, 2], return_token_ids=True), NOTHING),
        (completion(prompt=[[1], [2]]), NOTHING),
        (completion(), NOTHING),
        (chat(), NOTHING),
    ):
        assert asked(request, is_sampled=False) == expected


def test_an_echo_is_not_asked_for_ids_which_would_take_the_prompt_out_of_it():
    assert asked(completion(prompt=[1, 2], echo=True), is_sampled=False) == NOTHING
    assert sampled(completion(prompt=[1, 2], echo=True)) == NOTHING


@pytest.mark.parametrize("make", [completion, chat])
def test_a_sampled_request_asks_for_what_the_client_did_not(make):
    on, off = ({"logprobs": True}, {"logprobs": False}) if make is chat else ({"logprobs": 0}, {"logprobs": None})
    assert sampled(make()) == sampled(make(return_token_ids=None, **off)) == ALL
    assert sampled(make(return_token_ids=True)) == LOGPROBS
    assert sampled(make(**on)) == IDS
    assert sampled(make(return_token_ids=True, **on)) == NOTHING
    assert sampled(make(return_token_ids=False, stream=True)) == ALL


@pytest.mark.parametrize(
    "request_",
    [
        completion(), completion(prompt=[1, 2]), completion(prompt=["one"]), completion(logprobs=5), chat(),
        completion(top_logprobs=3), chat(logprobs=True, top_logprobs=3), chat(top_logprobs=0), chat(top_logprobs=None),
        chat(logprobs=True, logprob_token_ids=[5]), chat(echo=False), chat(include_reasoning=True), chat(n=1),
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}]),
        chat(messages=[{"role": "assistant", "content": None, "tool_calls": []}]),
        chat(tools=TOOLS), chat(tools=TOOLS, tool_choice="required", **STREAM), chat(tools=TOOLS, **STREAM),
        chat(tools=TOOLS, parallel_tool_calls=False), chat(parallel_tool_calls=False, **STREAM),
        chat(tools=TOOLS, tool_choice="none"),
    ],
    ids=lambda request: request.body.decode(),
)  # fmt: skip
def test_most_requests_can_be_scored(request_):
    assert is_scorable(request_)


@pytest.mark.parametrize(
    "request_",
    [
        completion(prompt=["a", "b"]), completion(n=2), completion(best_of=2), completion(use_beam_search=True),
        completion(prompt_embeds="abc"), completion(prompt_logprobs=0), completion(echo=True),
        completion(echo=True, logprobs=1), completion(return_token_ids="perhaps"), completion(logprob_token_ids=[5]),
        chat(n=2), chat(use_beam_search=True), chat(prompt_logprobs=1), chat(echo=True), chat(echo="perhaps"),
        chat(include_reasoning=False), chat(top_logprobs=3), chat(top_logprobs=-1, logprobs=False),
        chat(return_tokens_as_token_ids="perhaps"), completion(return_tokens_as_token_ids="perhaps"),
        chat(logprobs="perhaps"), chat(logprobs=5), chat(logprob_token_ids=[5]),
        chat(tools=TOOLS, parallel_tool_calls=False, **STREAM), chat(tools=TOOLS, tool_choice="none", **STREAM),
    ],
    ids=lambda request: request.body.decode(),
)  # fmt: skip
def test_requests_that_cannot_be_asked_without_a_trace_ask_for_nothing(request_):
    assert not is_scorable(request_)
    assert sampled(request_) == NOTHING


@pytest.mark.parametrize(
    "request_",
    [
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]),
        chat(messages=[{"role": "user", "content": [{"image_url": "data:,"}]}]),
        chat(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, {"role": "user"}]),
        chat(messages=[{"role": "user", "content": [5]}]),
    ],
    ids=lambda request: request.body.decode(),
)  # fmt: skip
def test_requests_with_more_than_text_are_asked_but_only_a_replay_can_check_them(request_):
    assert is_transparent(request_)
    assert not is_scorable(request_)
    assert sampled(request_) == ALL
