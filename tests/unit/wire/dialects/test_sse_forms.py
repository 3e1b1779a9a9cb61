"""Events in every form that the standard allows, and events that are no answer of an engine."""

import json

import pytest
from tests.support.sse import CHAT, DONE, ERROR, PING, ROLE, TAG, USAGE, event, feed, framed, public, relay

from ppd_wire.dialects.relay import MAX_HELD_BYTES
from ppd_wire.events import EventReader

# W5: by field, not by first line


def other_form(form, each):
    """An event of vLLM, written in another way that the standard allows."""
    line, _, _ = each.partition(b"\n\n")
    return {
        "named": b"event: x\n" + each,
        "numbered": b"id: 1\nretry: 5\n" + each,
        "named behind": line + b"\nevent: x\n\n",
        "without space": each.replace(b"data: ", b"data:"),
        "behind a comment": b": ping\n" + each,
        "on two lines": each.replace(b'", "choices"', b'",\ndata: "choices"'),
        "CR": each.replace(b"\n", b"\r"),
        "CRLF": each.replace(b"\n", b"\r\n"),
        "BOM": each,
    }[form]


FORMS = [
    "named", "numbered", "named behind", "without space", "behind a comment", "on two lines", "CR", "CRLF", "BOM",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_w5_every_form_of_an_event_is_read_alike(form):
    params = event([{"index": 0, "delta": {}, "finish_reason": "stop"}], kv_transfer_params={"remote_host": "10.0.0.1"})
    events = [other_form(form, each) for each in (ROLE, CHAT[1], params, USAGE, DONE)]
    if form == "BOM":
        events[0] = b"\xef\xbb\xbf" + events[0]
    stream = relay(drop_usage=True)
    assert stream.feed(events[0]) == b""
    out = feed(stream, *events[1:])
    assert stream.is_done
    assert stream.broken is None
    assert stream.answer().content == "hi"
    assert stream.answer().usage.prompt_tokens == 30
    for hidden in (b"kv_transfer_params", b"10.0.0.", TAG.encode(), b"usage"):
        assert hidden not in out, out
    said = [each for each in EventReader().feed(out) if each.data]
    assert len(said) == 4
    assert all(each.name == (b"x" if form.startswith("named") else b"") for each in said)


@pytest.mark.parametrize("form", FORMS)
def test_w5_an_error_in_every_form_is_an_error(form):
    failure = other_form(form, ERROR)
    early, late = relay(), relay()
    assert feed(early, ROLE, failure, DONE) == b""
    assert json.loads(early.error)["error"]["code"] == early.error_status == 500
    assert not early.is_decisive
    out = feed(late, ROLE, CHAT[1], failure, DONE)
    assert b"[DONE]" not in out
    assert json.loads(EventReader().feed(out)[-1].data)["error"]["message"] == "Internal server error"
    assert not late.is_done


@pytest.mark.parametrize(
    ("data", "message", "status"),
    [
        (b'{"message": "no memory", "code": 503}', "no memory", 503), (b"no memory", "no memory", 502),
        (b'{"error": {}}', "the engine reported an error", 502), (b'{"error": "no memory"}', "no memory", 502),
        (b"[1]", "[1]", 502), (b'{"choices": []}', "the engine reported an error", 502),
    ],
)  # fmt: skip
def test_w5_an_event_named_error_is_one_whatever_it_says(data, message, status):
    """Clients of OpenAI know an error by its `error` object."""
    for first in ([], [CHAT[1]]):
        stream = relay()
        out = feed(stream, *first, b"event: error\ndata: " + data + b"\n\n", DONE)
        shown = json.loads(EventReader().feed(out)[-1].data) if first else json.loads(stream.error)
        assert (shown["error"] if isinstance(shown["error"], str) else shown["error"]["message"]) == message
        assert stream.error_status == status


@pytest.mark.parametrize("tail", [b"data: x\nevent: error\n\n", b"event: error\n\n"])
def test_w5_an_ordinary_beginning_hides_no_other_field(tail):
    first = CHAT[1]
    for ends in (b"\n", b"\r"):
        stream = relay(hidden="same", public="same")
        stream.feed(first)
        odd = first[:-1].replace(b"\n", ends) + tail.replace(b"\n", ends)
        assert not stream.takes_chunk(framed(odd))
        stream.feed(odd)
        assert stream.error is not None, odd


# W3: what cannot be read


@pytest.mark.parametrize(
    "broken",
    [
        b"data: 1\n\n", b"data: not json\n\n", b"data: <h1>hi</h1>\n\n", b'data: {"choices": [{"te\n\n',
        b"data: {}\n\n", b'data: {"choices": null}\n\n', b'data: {"choices": [1]}\n\n', b'data: {"id": "a"}\n\n',
        b'data: {"choices": [{"text": "a", "logprobs": NaN}]}\n\n', b'data: {"choices": [{"text": "\xff"}]}\n\n',
    ],
)  # fmt: skip
def test_w3_an_event_that_is_no_chunk_breaks_the_answer_and_is_not_passed_on(broken):
    early, late = relay(), relay()
    assert feed(early, ROLE, broken, CHAT[1], DONE) == b""
    assert early.broken
    assert not early.is_decisive
    assert feed(late, ROLE, CHAT[1], broken, DONE) == public(ROLE + CHAT[1])
    assert late.broken
    assert not late.is_done


def test_w3_half_a_chunk_that_began_as_all_others_is_found_at_the_end():
    stream = relay()
    half = CHAT[1][:-10] + b"\n\n"
    assert b"[DONE]" not in feed(stream, ROLE, CHAT[1], CHAT[2], half, CHAT[3], DONE)
    assert stream.broken
    assert not stream.is_done


def test_what_comes_before_any_content_is_held_only_so_long():
    stream, piece = relay(), PING * 10_000
    while not stream.is_over:
        assert stream.feed(piece) == b""
    assert "without any content" in stream.broken
    assert stream._held_bytes < MAX_HELD_BYTES + 2 * len(piece)
