"""What the client may see of an engine's answer, and what the proxy learns from it."""

import json

import pytest

from ppd_wire.answers import answer as answers
from ppd_wire.answers.answer import assemble, client_body, is_too_long, read_transfer
from ppd_wire.answers.chunks import read_chunks
from ppd_wire.answers.transfer import Transfer
from ppd_wire.dialects.dialects import read_whole
from ppd_wire.requests.asked import IDS, NOTHING

TAG = "___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_" + "ab" * 16
USAGE = {"prompt_tokens": 30, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 16}}


def shown(body, *, hidden="key", public="key", asked=NOTHING):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client_body(raw, hidden_id=hidden.encode(), public_id=public.encode(), asked=asked)


def read(body):
    return read_whole("chat", json.dumps(body).encode())


def read_stream(stream):
    chunks = read_chunks(stream)
    return assemble(chunks) if chunks is not None else None


def streamed(*chunks):
    return read_stream(events(*(json.dumps(chunk).encode() for chunk in chunks)))


def events(*payloads):
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)


def delta(**fields):
    finish_reason = fields.pop("finish_reason", None)
    ids = fields.pop("token_ids", None)
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason, "token_ids": ids}]}


# What the client sees


def test_p26_the_tag_becomes_the_public_id_wherever_it_stands():
    body = shown({"id": f"cmpl-{TAG}-0", "x": {"request": TAG}}, hidden=TAG, public="cd" * 16)
    assert json.loads(body) == {"id": f"cmpl-{'cd' * 16}-0", "x": {"request": "cd" * 16}}
    assert b"10.0.0." not in body


@pytest.mark.parametrize(
    "value", [None, {"remote_host": "10.0.0.1", "remote_block_ids": [[1]]}, {"ppd_transfer": {"bytes": 1}}]
)
def test_p28_kv_parameters_are_taken_out(value):
    body = shown({"id": "a", "kv_transfer_params": value, "usage": USAGE})
    assert json.loads(body) == {"id": "a", "usage": USAGE}


def test_p28_the_rest_survives_byte_for_byte():
    raw = b'{"z":1.0E+5,"kv_transfer_params":{"a":1},"big":123456789012345678901234567890,"u":"\\u00e9","a":[1, 2]}'
    assert shown(raw) == b'{"z":1.0E+5,"big":123456789012345678901234567890,"u":"\\u00e9","a":[1, 2]}'


def test_an_answer_with_nothing_to_hide_passes_as_it_came():
    raw = b' {"id" : "key", "choices":[]}\n'
    assert shown(raw) == raw


def test_text_that_talks_about_kv_parameters_stays():
    body = {"choices": [{"text": 'say "kv_transfer_params": {"a":1}'}]}
    assert json.loads(shown(body)) == body


@pytest.mark.parametrize(
    "raw", [b"", b"not json", b'{"kv_transfer_params":', b'["kv_transfer_params"]', b'{"kv_transfer_params":"\xff"']
)
def test_a_body_that_is_no_json_object_is_not_this_functions_business(raw):
    assert shown(raw, asked=IDS) == raw


def test_token_ids_are_taken_out_for_a_client_that_did_not_ask():
    choice = {"index": 0, "text": "hi", "token_ids": [1, 2], "prompt_token_ids": [3]}
    body = shown({"id": "a", "choices": [choice], "prompt_token_ids": [3]}, asked=IDS)
    nothing = {"index": 0, "text": "hi", "token_ids": None, "prompt_token_ids": None}
    assert json.loads(body) == {"id": "a", "choices": [nothing], "prompt_token_ids": None}
    assert json.loads(shown({"choices": [choice]})) == {"choices": [choice]}


@pytest.mark.parametrize("choices", [None, "odd", [1], {}])
def test_odd_choices_are_no_reason_to_fail(choices):
    """An error page of a middlebox, an engine of another kind: the client sees what it said."""
    raw = json.dumps({"choices": choices, "message": "odd"}).encode()
    assert json.loads(shown(raw, asked=IDS))["message"] == "odd"


# What an answer tells of its transfer

TOLD = {"bytes": 262144, "seconds": 0.5, "blocks": 2, "skipped_blocks": 14}


def with_transfer(value):
    return json.dumps({"id": "a", "choices": [], "kv_transfer_params": {"ppd_transfer": value}}).encode()


@pytest.mark.parametrize("more", [{}, {"added_later": 1}])
def test_the_transfer_of_an_answer_is_read(more):
    assert read_transfer(with_transfer(TOLD | more)) == Transfer(bytes=262144, seconds=0.5, blocks=2, skipped_blocks=14)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({**TOLD, "bytes": -1}, id="negative"),
        pytest.param({**TOLD, "seconds": "0.5"}, id="text"),
        pytest.param({**TOLD, "blocks": 1.5}, id="half a block"),
    ],
)
def test_a_transfer_that_makes_no_sense_is_not_known(value):
    assert read_transfer(with_transfer(value)) is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"kv_transfer_params":null,"x":{"ppd_transfer":{}}}', id="somewhere else"),
        pytest.param(b'{"kv_transfer_params":7,"ppd_transfer":1}', id="no parameters"),
        pytest.param(b'["ppd_transfer"]', id="no object"),
        pytest.param(b'{"kv_transfer_params":{"ppd_transfer":', id="broken off"),
        pytest.param(b'{"ppd_transfer":1,"\xff":1}', id="no text"),
    ],
)
def test_an_answer_that_only_mentions_a_transfer_tells_none(body):
    assert read_transfer(body) is None


def test_an_answer_that_tells_no_transfer_is_not_read_for_it(monkeypatch):
    monkeypatch.setattr(answers, "_transfer_reply", None)
    text = {"choices": [{"text": 'a field named "ppd_transfer"'}], "kv_transfer_params": None}
    assert read_transfer(json.dumps(text).encode()) is None
    with pytest.raises(AttributeError):
        read_transfer(with_transfer(TOLD))


# What an answer said


def test_a_completion_is_read():
    answer = read({"choices": [{"index": 0, "text": " hi", "finish_reason": "stop", "token_ids": [1]}], "usage": USAGE})
    assert (answer.content, answer.is_finished, answer.token_ids) == (" hi", True, [1])
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.cached_tokens) == (30, 4, 16)


def test_p27_null_details_of_usage_mean_unknown():
    assert (
        read({"choices": [], "usage": {"prompt_tokens": 3, "prompt_tokens_details": None}}).usage.cached_tokens is None
    )
    unknown = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": None, "created_cache_tokens": 1}}
    assert read({"choices": [], "usage": unknown}).usage.cached_tokens is None


def test_a_chat_answer_is_read():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call], "refusal": None}
    answer = read({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    assert (answer.content, answer.reasoning, answer.tool_calls) == ("", "hm", [call])


def test_older_engines_call_reasoning_reasoning_content():
    assert read({"choices": [{"message": {"content": "a", "reasoning_content": "hm"}}]}).reasoning == "hm"


def test_of_several_choices_only_the_usage_is_read():
    choices = [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]
    for answer in (
        read({"choices": choices, "usage": USAGE}),
        streamed({"choices": choices[:1]}, {"choices": choices[1:]}, {"choices": [], "usage": USAGE}),
    ):
        assert not answer.is_single
        assert answer.usage.prompt_tokens == 30


def test_a_stream_is_put_together():
    answer = streamed(
        delta(role="assistant", content=""),
        delta(reasoning="let me "),
        delta(reasoning="see"),
        delta(content="a", token_ids=[1]),
        delta(content="b", token_ids=[2, 3]),
        delta(content="", finish_reason="stop"),
        {"choices": [], "usage": USAGE},
    )
    assert (answer.content, answer.reasoning, answer.token_ids) == ("ab", "let me see", [1, 2, 3])
    assert answer.is_finished
    assert answer.usage.prompt_tokens == 30


def test_streamed_tool_calls_are_put_together():
    answer = streamed(
        delta(tool_calls=[{"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        delta(tool_calls=[{"index": 1, "id": "c1", "type": "function", "function": {"name": "g"}}]),
        delta(tool_calls=[{"index": 1, "function": {"arguments": "{}"}}], finish_reason="tool_calls"),
    )
    assert answer.tool_calls == [
        {"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


@pytest.mark.parametrize(
    "piece", [{"index": -1}, {"index": 5}, {"index": None}, {"index": "0"}, {"function": None}, {}]
)
def test_odd_pieces_of_tool_calls_break_nothing(piece):
    streamed(delta(tool_calls=[piece]), delta(tool_calls=[piece]))


def test_a_stream_with_something_else_in_it_is_none():
    assert read_stream(events(b'{"choices":[{"text":"a"}]}', b"[1]")) is None
    assert read_stream(events(b'{"choices":[{"text":"a"}]}', b"[DONE]")).content == "a"


def test_comments_and_other_spacing_between_chunks_change_nothing():
    stream = b': ping\n\ndata:{"choices":[{"text":"a"}]}\n\ndata:  {"choices":[{"text":"b"}]} \n\ndata: [DONE]\n\n'
    assert read_stream(stream).content == "ab"


# P11


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input tokens",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    ],
)
def test_p11_a_prompt_that_is_too_long_is_the_clients_fault(message):
    assert is_too_long(json.dumps({"error": {"message": message, "code": 500}}).encode())


def test_p11_other_failures_are_the_engines():
    assert not is_too_long(b'{"error":{"message":"Internal server error","code":500}}')
