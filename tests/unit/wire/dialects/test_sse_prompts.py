"""A stream whose prompt is compared: its end waits for the count, however the bytes are cut and whatever their form."""

import json

import pytest
from tests.support.scripted import chunk

from ppd_wire.answers.prompt_counts import PromptCheck
from ppd_wire.dialects.sse import SseRelay
from ppd_wire.requests.asked import NOTHING

ID = b"key"


def relay_of(check, *, drop_usage=True):
    return SseRelay(hidden_id=ID, public_id=ID, drop_usage=drop_usage, asked=NOTHING, check=check)


def stream(count=7, *, separators=(",", ":"), usage_in=None, style="null", done=True):
    """A role chunk, five pieces of text, an end and a count, as vLLM and others write them."""

    def event(delta, reason=None, **more):
        end = {} if style == "left out" and reason is None else {"finish_reason": reason}
        return {"id": "chatcmpl-key", "choices": [{"index": 0, "delta": delta, **end}], **more}

    usage = {"usage": {"prompt_tokens": count, "completion_tokens": 5}}
    texts = ["a", "b \"finish_reason\":\"stop\"", 'c "finish_reason":null', "d\n\ndata: [DONE]\n\n", "e"]
    said = [event({"role": "assistant"}), *(event({"content": text}) for text in texts)]
    said.append(event({}, "stop", **(usage if usage_in == "end" else {})))
    if usage_in is None and count is not None:
        said.append({"id": "chatcmpl-key", "choices": [], **usage})
    events = [f"data: {json.dumps(each, separators=separators)}\n\n".encode() for each in said]
    return [*events, b"data: [DONE]\n\n"] if done else events


FORMS = {
    "vllm": {},
    "spaced": {"separators": (", ", ": ")},
    "left out": {"style": "left out"},
    "with the end": {"usage_in": "end"},
    "spaced, with the end": {"separators": (", ", ": "), "usage_in": "end"},
}
FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def cut(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def cuts(events):
    whole = b"".join(events)
    yield events
    yield [whole]
    for size in (1, 2, 7, 60, 300):
        yield cut(whole, size)
    for place in range(max(0, len(whole) - 350), len(whole)):  # the end is what is held back
        yield [whole[:place], whole[place:]]
    for number in range(len(events)):
        yield [b"".join(events[:number]), b"".join(events[number:])]


@FORM
def test_a_stream_to_the_same_prompt_arrives_whole_however_it_is_cut(form):
    events = stream(**form)
    shown = b"".join(event for event in events if b'"choices":[]' not in event.replace(b" ", b""))
    for pieces in cuts(events):
        check = PromptCheck(7)
        relay = relay_of(check)
        assert b"".join(relay.feed(piece) for piece in pieces) == shown
        assert (relay.is_done, check.result) == (True, "same")


@FORM
def test_a_stream_to_another_prompt_loses_its_end_however_it_is_cut(form):
    events = stream(8, **form)
    for pieces in cuts(events):
        check = PromptCheck(7)
        relay = relay_of(check)
        shown = b"".join(relay.feed(piece) for piece in pieces)
        assert check.is_differing
        assert (relay.is_done, relay.broken) == (False, str(check))
        assert not any(end in shown for end in events[6:])
        assert b"".join(events[:6]).startswith(shown)


@FORM
def test_the_end_of_a_stream_that_counts_nothing_comes_with_its_last_event(form):
    events = stream(None, **{**form, "usage_in": None})
    for pieces in cuts(events):
        relay = relay_of(PromptCheck(7))
        assert b"".join(relay.feed(piece) for piece in pieces) == b"".join(events)
        assert relay.is_done


@FORM
def test_ordinary_chunks_still_pass_as_they_came_and_the_end_does_not(form):
    relay = relay_of(PromptCheck(7))
    role, first, *middle, end = stream(usage_in="end", **{name: form[name] for name in form if name != "usage_in"})[:7]
    relay.feed(role)
    relay.feed(first)
    assert [relay.takes_chunk(chunk(each)) for each in middle] == [True] * 4
    assert not relay.takes_chunk(chunk(end))


def test_an_end_without_text_is_not_decisive_before_its_count():
    """So that the request can be tried again."""
    choice = {"index": 0, "delta": {"content": "only"}, "finish_reason": "stop"}
    end = f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
    count = b'data: {"choices":[],"usage":{"prompt_tokens":8}}\n\n'
    relay = relay_of(PromptCheck(7))
    assert relay.feed(end) == b""
    assert not relay.is_decisive
    assert relay.feed(count) == b""
    assert (relay.is_decisive, relay.is_over) == (False, True)


def test_an_error_behind_the_end_is_shown_and_the_end_is_not():
    relay = relay_of(PromptCheck(7))
    *events, end, _, _ = stream()
    for event in (*events, end):
        relay.feed(event)
    shown = relay.feed(b'data: {"error":{"message":"no","code":500}}\n\n')
    assert b'"error"' in shown
    assert b"stop" not in shown
    assert (relay.is_done, relay.error is not None) == (False, True)


def test_what_a_client_asked_of_usage_it_gets():
    relay = relay_of(PromptCheck(7), drop_usage=False)
    events = stream()
    assert b"".join(relay.feed(event) for event in events) == b"".join(events)
