"""Streams of `/v1/responses`."""

import json

import pytest

from ppd_wire.dialects.responses import ResponsesRelay, error_event
from ppd_wire.events import EventReader

HIDDEN, PUBLIC = b"ab" * 16, b"cd" * 16
USAGE = {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3}


def event(kind, number=0, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **fields})}\n\n".encode()


def response(**fields):
    return {"id": f"resp_{HIDDEN.decode()}", "object": "response", "output": [], **fields}


CREATED = event("response.created", 0, response=response(status="in_progress", usage=None))
WORKING = event("response.in_progress", 1, response=response(status="in_progress"))
ITEM = event("response.output_item.added", 2, item={"type": "message"})
PART = event("response.content_part.added", 3, part={"type": "output_text", "text": ""})
TEXT = event("response.output_text.delta", 4, delta="hi")
DONE = event("response.output_text.done", 5, text="hi")
COMPLETED = event("response.completed", 6, response=response(status="completed", usage=USAGE))
WHOLE = [CREATED, WORKING, ITEM, PART, TEXT, DONE, COMPLETED]
FAILED = event("response.failed", 5, response=response(error={"code": "server_error", "message": "lost the KV"}))


def relay():
    return ResponsesRelay(hidden_id=HIDDEN, public_id=PUBLIC)


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


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete"])
def test_w4_a_whole_stream_passes_as_it_came_and_ends_with_its_last_event(end):
    events = [each.replace(b"response.completed", end.encode()) for each in WHOLE]
    assert outcome(*events, TEXT) == (public(b"".join(events)), True, True, None, 502, None, (7, 4, 3))


def test_w8_nothing_is_content_before_the_first_delta():
    stream = relay()
    empty = event("response.output_text.delta", 4, delta="")
    assert feed(stream, *WHOLE[:4], empty) == b""
    assert not stream.is_decisive
    assert stream.feed(TEXT) == public(b"".join(WHOLE[:4]) + empty + TEXT)


@pytest.mark.parametrize("kind", ["response.reasoning_text.delta", "response.function_call_arguments.delta"])
def test_content_of_any_kind_is_decisive(kind):
    assert outcome(CREATED, event(kind, 1, delta="{"))[1]


def test_w4_a_stream_that_only_stops_is_not_done():
    for events in (WHOLE[:-1], [*WHOLE[:-1], b"data: [DONE]\n\n"]):
        assert not outcome(*events)[2]


ERRORS = [
    (event("error", 5, code="server_error", message="lost the KV", param=None), 500),
    (b'data: {"error": {"message": "lost the KV", "type": "InternalServerError", "code": 500}}\n\n', 500),
    (event("error", 5, error={"message": "lost the KV", "code": 503}), 503),
    (b"event: error\ndata: lost the KV\n\n", 502),
]


@pytest.mark.parametrize(("failure", "status"), ERRORS)
def test_w4_every_form_of_an_error_is_one_in_the_dialect(failure, status):
    early, late = relay(), relay()
    assert feed(early, CREATED, WORKING, failure, TEXT, COMPLETED) == b""
    assert not early.is_decisive
    assert early.error_status == status
    assert json.loads(early.error)["error"]["message"] == "lost the KV"
    out = feed(late, *WHOLE[:5], failure, COMPLETED)
    *_, last = EventReader().feed(out)
    told = json.loads(last.data)
    assert (last.name, told["type"], told["message"], told["param"]) == (b"error", "error", "lost the KV", None)
    assert told["error"]["message"] == "lost the KV"
    assert told["sequence_number"] == 5
    assert b"response.completed" not in out
    assert not late.is_done


def test_w4_a_failed_response_is_a_status_before_content_and_the_end_behind_it():
    early, late = relay(), relay()
    assert feed(early, CREATED, FAILED) == b""
    assert (early.error_status, json.loads(early.error)["error"]["message"]) == (500, "lost the KV")
    assert feed(late, CREATED, TEXT, FAILED, COMPLETED) == public(CREATED + TEXT + FAILED)
    assert late.error is not None
    assert not late.is_done


def test_handoff_parameters_are_taken_out():
    told = response(kv_transfer_params={"remote_host": "10.0.0.1"}, ec_transfer_params={})
    out = feed(relay(), event("response.created", response=told), TEXT)
    assert b"transfer_params" not in out
    assert json.loads(EventReader().feed(public(out))[0].data)["response"]["object"] == "response"


def test_w8_a_response_without_usage_tells_none():
    assert outcome(CREATED, TEXT, event("response.completed", 9, response=response(usage=None)))[-1] is None


def test_w4_our_own_error_takes_the_next_number():
    stream = relay()
    feed(stream, *WHOLE[:5])
    assert stream.next_number == 5
    stream.feed(event("response.output_text.delta", 41, delta="x"))
    assert stream.next_number == 42
    body = b'{"error":{"message":"lost","type":"engine_error","param":null,"code":502,"reason":"engine_error"}}'
    (event_,) = EventReader().feed(error_event(body, 42))
    told = json.loads(event_.data)
    assert event_.name == b"error"
    assert told == {
        "type": "error", "code": "502", "message": "lost", "param": None, "sequence_number": 42,
        "error": json.loads(body)["error"],
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"<h1>", b"[1]", b"{}", b'{"type":"x","a":"\xff"}'])
def test_w3_an_event_that_cannot_be_read_breaks_the_answer(data):
    early, late, broken = relay(), relay(), b"data: " + data + b"\n\n"
    assert feed(early, CREATED, broken, TEXT, COMPLETED) == b""
    assert early.broken
    assert feed(late, TEXT, broken, COMPLETED) == TEXT
    assert late.broken


@pytest.mark.parametrize(
    "events",
    [
        WHOLE, [CREATED, FAILED], [*WHOLE[:5], ERRORS[0][0], COMPLETED], [each.replace(b"\n", b"\r") for each in WHOLE],
    ],
    ids=["whole", "failed at once", "failed later", "CR"],
)  # fmt: skip
def test_w5_two_reads_split_at_any_byte_give_the_client_the_same(events):
    data = b"".join(events)
    whole = outcome(data)
    assert outcome(*events) == whole
    for index in range(len(data)):
        assert outcome(data[:index], data[index:]) == whole, index
