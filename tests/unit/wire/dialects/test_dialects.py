"""Which whole answers are answers, in each dialect, and what they say."""

import json

import pytest

from ppd_wire.dialects.dialects import BrokenAnswer, HandedOver, read_prefill, read_whole
from ppd_wire.requests.asked import IDS, NOTHING, Asked

CHAT = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}'
MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "hi"}],
    "usage": {"input_tokens": 74, "cache_read_input_tokens": 1792, "output_tokens": 9},
}  # fmt: skip
RESPONSE = {
    "id": "r", "object": "response", "output": [], "error": None,
    "usage": {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3},
}  # fmt: skip
NO_OBJECTS = [
    b"", b" ", b"<h1>hi</h1>", b"hi", b"null", b"[]", b"[{}]", b'"x"', b"{", b'{"choices":[{"mess', CHAT[:-1],
    CHAT + b"}", CHAT + CHAT, b"\xef\xbb\xbf" + CHAT, b"data: " + CHAT + b"\n\n", b"\x1f\x8b\x08",
]  # fmt: skip


def read(dialect, body, asked=NOTHING):
    return read_whole(dialect, body if isinstance(body, bytes) else json.dumps(body).encode(), asked)


@pytest.mark.parametrize("dialect", ["chat", "completion", "responses", "messages"])
@pytest.mark.parametrize("body", NO_OBJECTS)
def test_w3_what_is_no_json_object_is_no_answer(dialect, body):
    with pytest.raises(BrokenAnswer):
        read(dialect, body)


@pytest.mark.parametrize("dialect", ["chat", "completion"])
@pytest.mark.parametrize(
    "body",
    [
        b"{}", b'{"error":{"message":"no"}}', b'{"object":"error","message":"no"}', b'{"choices":null}',
        b'{"choices":{}}', b'{"choices":"x"}', b'{"choices":[1]}', b'{"choices":[null]}', b'{"choices":[[]]}',
        b'{"choices":[{"text":"a"}],"error":{"message":"no"}}', b'{"choices":[{"text":"a"}],"error":"no"}',
        b'{"choices":[{"text":"a"}],"error":{}}', b'{"choices":[{"text":"a"}],"error":""}',
        b'{"choices":[],"usage":NaN}', b'{"choices":[{"text":"a","logprobs":{"x":[NaN]}}]}',
        b'{"choices":[],"a":Infinity}', b'{"choices":[],"a":-Infinity}',
        b'{"choices":[{"text":"\xff"}]}', b'{"choices":[{"text":"a\nb"}]}',
    ],
)  # fmt: skip
def test_w3_an_object_that_is_no_answer(dialect, body):
    for asked in (NOTHING, IDS, Asked(True, True)):
        if not (asked.logprobs and b"logprobs" in body):
            with pytest.raises(BrokenAnswer):
                read(dialect, body, asked)


@pytest.mark.parametrize("body", [{}, {"a": 1}, {"detail": "Not Found"}, {"status": "ok"}, {"choices": []}])
def test_w3_another_programs_object_is_no_answer(body):
    for dialect in ("chat", "messages", "responses"):
        if dialect != "chat" or "choices" not in body:
            with pytest.raises(BrokenAnswer):
                read(dialect, body)


@pytest.mark.parametrize(("dialect", "body"), [("messages", MESSAGE), ("responses", RESPONSE)])
def test_w3_an_error_is_no_answer_of_the_other_dialects_either(dialect, body):
    assert read(dialect, {**body, "error": None}) is not None
    for error in ({"message": "no"}, "no", {}):
        with pytest.raises(BrokenAnswer, match="error"):
            read(dialect, {**body, "error": error})


def test_an_answer_is_read():
    answer = read("chat", CHAT)
    assert (answer.content, answer.is_finished, answer.usage.prompt_tokens) == ("hi", True, 3)


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [{"message": {"content": [{"type": "text"}]}}]}, {"choices": [{"index": "0"}]},
        {"choices": [{}], "usage": {"prompt_tokens": "3"}}, {"choices": [{"message": "hi"}]},
    ],
)  # fmt: skip
def test_an_answer_that_says_something_else_than_vllm_does_is_one_all_the_same(odd):
    assert read("chat", odd) is None


def test_no_numbers_are_fine_in_what_only_the_proxy_asked_for():
    """It is taken out before the client sees it, and a baseline has to know."""
    body = b'{"choices":[{"text":"a","logprobs":{"token_logprobs":[NaN]},"token_ids":[1]}]}'
    assert read("completion", body, Asked(True, True)) is None
    with pytest.raises(BrokenAnswer):
        read("completion", body, IDS)


# W8: usage


def usage(dialect, told):
    answer = read(dialect, {**(MESSAGE if dialect == "messages" else RESPONSE), "usage": told})
    if answer is None:
        return None
    return answer.usage.prompt_tokens, answer.usage.cached_tokens, answer.usage.completion_tokens


def test_w8_a_message_counts_its_cached_tokens_too():
    told = {"input_tokens": 74, "cache_read_input_tokens": 1700, "cache_creation_input_tokens": 92, "output_tokens": 9}
    assert usage("messages", told) == (1866, 1700, 9)
    assert usage("messages", {"input_tokens": 5, "output_tokens": 2}) == (5, None, 2)
    assert usage("messages", {"input_tokens": 5, "cache_read_input_tokens": None, "output_tokens": 2}) == (5, None, 2)


def test_w8_a_response_counts_its_tokens():
    assert usage("responses", RESPONSE["usage"]) == (7, 4, 3)
    assert usage("responses", {"input_tokens": 7, "output_tokens": 3}) == (7, None, 3)


@pytest.mark.parametrize(
    "told",
    [
        None, {}, [], "x", {"input_tokens": 0, "output_tokens": 0}, {"input_tokens": "7"}, {"input_tokens": -1},
        {"input_tokens": 1.5}, {"output_tokens": 3}, {"input_tokens": None},
    ],
)  # fmt: skip
def test_w8_what_is_not_known_is_absent(told):
    assert usage("messages", told) is None
    assert usage("responses", told) is None


# What a prefill answer hands over


def test_handoff_parameters_are_given_verbatim():
    raw = b'{ "a": 1.0E2, "blocks":[[1,2]] }'
    assert read_prefill(b'{"id":"x","kv_transfer_params":' + raw + b',"choices":[]}') == HandedOver(raw, None)


@pytest.mark.parametrize(
    "more", [b"", b',"kv_transfer_params":null', b',"kv_transfer_params" : null ', b',"error":null']
)
def test_an_answer_may_hand_nothing_over(more):
    assert read_prefill(b'{"choices":[{"text":7}]' + more + b"}") == HandedOver(None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"<html>", b'{"kv_transfer_params":', b"data: {}\n\n", b"{}", b'{"kv_transfer_params":{"a":1}}',
        b'{"choices":null}', b'{"choices":[1]}', b'{"choices":[],"error":{"message":"no"}}', b'{"error":"no"}',
    ],
)  # fmt: skip
def test_a_prefill_answer_that_is_none_is_broken(body):
    with pytest.raises(BrokenAnswer, match="the engine answered 200"):
        read_prefill(body)


@pytest.mark.parametrize(
    ("usage", "count"), [(b'{"prompt_tokens":7}', 7), (b"null", None), (b"[]", None), (b'{"prompt_tokens":"7"}', None)]
)
def test_a_prefill_answer_may_count_its_prompt(usage, count):
    body = b'{"choices":[],"usage":' + usage + b',"kv_transfer_params":{"a":1}}'
    assert read_prefill(body) == HandedOver(b'{"a":1}', count)
