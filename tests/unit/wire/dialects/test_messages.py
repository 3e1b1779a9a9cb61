"""Streams of `/v1/messages`."""

import json

import pytest

from ppd_wire.dialects.messages import MessagesRelay, error_body, error_event
from ppd_wire.events import EventReader

HIDDEN, PUBLIC = b"ab" * 16, b"cd" * 16


def event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def start(**usage):
    message = {"id": f"chatcmpl-{HIDDEN.decode()}", "type": "message", "content": [], "usage": usage}
    return event("message_start", message=message)


START = start(input_tokens=1866, output_tokens=0)
BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
TEXT = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"})
DELTA = event(
    "message_delta", delta={"stop_reason": "end_turn"},
    usage={"input_tokens": 74, "cache_read_input_tokens": 1792, "output_tokens": 9},
)  # fmt: skip
STOP = event("message_stop")
PING = event("ping")
ERROR = event("error", error={"type": "internal_error", "message": "lost the KV"})
WHOLE = [START, PING, BLOCK, TEXT, event("content_block_stop", index=0), DELTA, STOP]


def relay():
    return MessagesRelay(hidden_id=HIDDEN, public_id=PUBLIC)


def feed(stream, *events):
    return b"".join(stream.feed(each) for each in events)


def public(data):
    return data.replace(HIDDEN, PUBLIC)


def outcome(*pieces):
    stream = relay()
    out = feed(stream, *pieces)
    answer = stream.answer()
    usage = answer and (answer.usage.prompt_tokens, answer.usage.cached_tokens, answer.usage.completion_tokens)
    return out, stream.is_decisive, stream.is_done, stream.error, stream.error_status, stream.broken, usage


def test_w4_a_whole_stream_passes_as_it_came_and_ends_with_message_stop():
    assert outcome(*WHOLE) == (public(b"".join(WHOLE)), True, True, None, 502, None, (1866, 1792, 9))


def test_w8_nothing_is_content_before_the_first_delta():
    stream = relay()
    assert feed(stream, START, PING, BLOCK) == b""
    assert not stream.is_decisive
    assert stream.feed(TEXT) == public(START + PING + BLOCK + TEXT)
    assert stream.is_decisive


def test_an_answer_without_content_is_one():
    stream = relay()
    assert feed(stream, START, DELTA, STOP) == public(START + DELTA + STOP)
    assert stream.is_done


def test_w4_a_stream_without_message_stop_is_not_done():
    for events in (WHOLE[:-1], [*WHOLE[:-1], b"data: [DONE]\n\n"]):
        assert not outcome(*events)[2]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (ERROR, 500), (b'data: {"error": {"message": "lost the KV", "code": 503}}\n\n', 503),
        (event("error", error={"type": "overloaded_error", "message": "lost the KV"}), 529),
        (b'data: {"type": "error", "error": {"type": "x", "message": "lost the KV"}}\n\n', 502),
        (b"event: error\ndata: lost the KV\n\n", 502),
        (b'event: error\r\ndata: {"message": "lost the KV"}\r\n\r\n', 502),
        (event("message_stop", error={"message": "lost the KV"}), 502),
    ],
)  # fmt: skip
def test_w4_every_form_of_an_error_is_one_in_the_dialect(failure, status):
    early, late = relay(), relay()
    assert feed(early, START, BLOCK, failure, TEXT, STOP) == b""
    assert not early.is_decisive
    assert early.error_status == status
    out = feed(late, START, TEXT, failure, STOP)
    *_, last = EventReader().feed(out)
    assert last.name == b"error"
    for told in (json.loads(early.error), json.loads(last.data)):
        assert told["type"] == "error"
        assert told["error"]["message"] == "lost the KV"
        assert told["error"]["type"]
    assert b"message_stop" not in out
    assert not late.is_done


def test_w4_an_error_tells_nothing_of_the_handoff():
    stream = relay()
    failure = event("error", error={"type": "x", "message": f"lost {HIDDEN.decode()}"}, kv_transfer_params={"a": 1})
    out = feed(stream, TEXT, failure)
    assert b"kv_transfer_params" not in out
    assert HIDDEN not in out
    stream = relay()
    assert b"10.0.0.1" not in feed(stream, TEXT, b"event: error\ndata: remote_host=10.0.0.1\n\n")


def test_handoff_parameters_are_taken_out():
    message = {"id": "m", "content": [], "kv_transfer_params": {"remote_host": "10.0.0.1"}, "ec_transfer_params": {}}
    out = feed(relay(), event("message_start", message=message, kv_transfer_params=None), TEXT)
    assert b"transfer_params" not in out
    assert json.loads(EventReader().feed(out)[0].data)["message"] == {"id": "m", "content": []}


def test_w4_an_event_gets_the_name_without_which_clients_pass_it_over():
    out = feed(relay(), *[each.partition(b"\n")[2] for each in WHOLE])
    assert out == public(b"".join(WHOLE))


@pytest.mark.parametrize(
    "data", [b"data: <h1>", b"event: x\ndata: [1]", b"data: {}", b'data: {"type": "\xff"}', b"data: {"]
)
def test_w3_an_event_that_cannot_be_read_breaks_the_answer(data):
    early, late, broken = relay(), relay(), data + b"\n\n"
    assert feed(early, START, broken, TEXT, STOP) == b""
    assert early.broken
    assert feed(late, TEXT, broken, STOP) == TEXT
    assert late.broken
    assert not late.is_done


def test_events_of_tomorrow_pass():
    odd = event("content_block_sparkle", index=0)
    out = feed(relay(), START, odd, TEXT, odd, STOP)
    assert out == public(START + odd + TEXT + odd + STOP)


@pytest.mark.parametrize(
    "events", [WHOLE, [START, ERROR], [START, TEXT, ERROR, STOP], [each.replace(b"\n", b"\r\n") for each in WHOLE]],
    ids=["whole", "failed at once", "failed later", "CRLF"],
)  # fmt: skip
def test_w5_two_reads_split_at_any_byte_give_the_client_the_same(events):
    data = b"".join(events)
    whole = outcome(data)
    assert outcome(*events) == whole
    for index in range(len(data)):
        assert outcome(data[:index], data[index:]) == whole, index


# W8: usage


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        (({"input_tokens": 9, "output_tokens": 0}, {"output_tokens": 4}), (9, None, 4)),
        (({"input_tokens": 9, "cache_read_input_tokens": 3}, {"output_tokens": 4}), (12, 3, 4)),
        (({"input_tokens": 12}, {"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 4}), (12, 3, 4)),
        (({"input_tokens": 9, "output_tokens": 0}, None), (9, None, None)), ((None, {"output_tokens": 4}), None),
        (({"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 0, "output_tokens": 0}), None),
        (({"input_tokens": "9"}, {"input_tokens": -1}), None), ((None, None), None),
    ],
)  # fmt: skip
def test_w8_the_usage_of_a_stream_is_put_together_or_absent(usages, expected):
    first, last = usages
    begin = START if first is not None else event("message_start", message={"id": "m"})
    if first is not None:
        begin = start(**first)
    end = event("message_delta", delta={}, **({"usage": last} if last is not None else {}))
    assert outcome(begin, TEXT, end, STOP)[-1] == expected


# Our own errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
        (404, "not_found_error"), (405, "invalid_request_error"), (413, "request_too_large"), (429, "rate_limit_error"),
        (500, "api_error"), (502, "api_error"), (503, "overloaded_error"), (504, "timeout_error"),
    ],
)  # fmt: skip
def test_w4_each_status_has_a_type_of_anthropic(status, kind):
    body = error_body(status, "no", reason="x")
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "no", "reason": "x"}}
    (event,) = EventReader().feed(error_event(body))
    assert (event.name, event.data) == (b"error", body)
