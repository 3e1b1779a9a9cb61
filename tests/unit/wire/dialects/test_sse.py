"""Streams on their way to the client: when the first byte may leave, and what never does."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.sse import (
    CHAT,
    DONE,
    ERROR,
    PING,
    PUBLIC,
    ROLE,
    TAG,
    USAGE,
    delta,
    event,
    feed,
    framed,
    public,
    relay,
    text,
)  # fmt: skip

from ppd_wire.answers.chunks import split_plain
from ppd_wire.dialects.sse import READ_BYTES, UNKEPT_BYTES, SseRelay
from ppd_wire.requests.asked import IDS, NOTHING, Asked

# Rule 1: nothing before the first decisive event


def test_p9_the_role_chunk_waits_for_the_first_content():
    stream = relay()
    assert stream.feed(ROLE) == b""
    assert not stream.is_decisive
    assert stream.feed(CHAT[1]) == public(ROLE + CHAT[1])
    assert stream.is_decisive


@pytest.mark.parametrize(
    "decisive",
    [
        delta(content="a"),
        delta(reasoning="hm"),
        delta(reasoning_content="hm"),
        delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]),
        delta(function_call={"name": "f"}),
        delta(refusal="no"),
        delta("stop", content=""),
        delta("length"),
        text("a"),
        text("", "stop"),
    ],
)
def test_content_of_any_kind_or_a_finish_reason_is_decisive(decisive):
    stream = relay()
    assert feed(stream, PING, ROLE, decisive) == public(PING + ROLE + decisive)
    assert stream.is_decisive


@pytest.mark.parametrize(
    "quiet",
    [
        ROLE, PING, USAGE, text(""), delta(content=None, tool_calls=[]), delta(), event([]), event([{"index": 0}]),
        event([{"index": 0, "delta": None}]), b"data: \n\n", b"event: x\n\n", b"\n\n",
    ],
)  # fmt: skip
def test_events_without_content_are_not_decisive(quiet):
    stream = relay()
    assert stream.feed(quiet) == b""
    assert not stream.is_decisive


def test_p9_the_answer_of_a_failed_kv_load_never_reaches_the_client():
    """vLLM: status 200, a role chunk, an error event and [DONE]; completions have no role chunk."""
    for events in ([ROLE, ERROR, DONE], [ERROR, DONE]):
        stream = relay()
        assert feed(stream, *events) == b""
        assert not stream.is_decisive
        assert json.loads(stream.error)["error"]["code"] == 500
        assert relay().feed(b"".join(events)) == b""


def test_p9_an_error_before_content_is_an_error_whatever_follows():
    for pieces in ([ROLE, ERROR, delta(content="a"), DONE], [ROLE + ERROR + delta(content="a") + DONE]):
        stream = relay()
        assert feed(stream, *pieces) == b""
        assert not stream.is_decisive
        assert stream.error is not None


# Rule 2: errors and [DONE]


def test_p13_a_later_error_is_relayed_and_its_done_is_not():
    stream = relay()
    assert feed(stream, ROLE, CHAT[1], ERROR, DONE) == public(ROLE + CHAT[1]) + ERROR
    assert stream.error is not None


def test_p13_an_error_in_the_same_read_as_content_too():
    stream = relay()
    assert stream.feed(ROLE + CHAT[1] + ERROR + DONE) == public(ROLE + CHAT[1]) + ERROR


def test_done_is_noticed_and_relayed():
    stream = relay()
    assert feed(stream, *CHAT) == public(b"".join(CHAT))
    assert stream.is_done
    assert stream.error is None


def test_a_stream_without_done_is_not_done():
    stream = relay()
    feed(stream, *CHAT[:-1])
    assert not stream.is_done


def test_an_error_field_of_null_is_no_error():
    stream = relay()
    piece = event([{"index": 0, "text": "a"}], error=None)
    assert stream.feed(piece) == public(piece)
    assert stream.error is None


# Rule 3: what the client may not see


def test_p26_ids_are_replaced_in_every_chunk():
    out = feed(relay(), *CHAT)
    assert TAG.encode() not in out
    assert out.count(PUBLIC.encode()) == 5


def test_p26_an_error_event_does_not_show_the_engines_id():
    stream = relay()
    failure = b'data: {"error": {"message": "request chatcmpl-%b was aborted", "code": 500}}\n\n' % TAG.encode()
    out = feed(stream, ROLE, CHAT[1], failure)
    assert out.endswith(public(failure))


def test_p27_the_usage_chunk_is_dropped_for_a_client_that_did_not_ask():
    quiet = relay(drop_usage=True)
    assert feed(quiet, *CHAT) == public(b"".join(each for each in CHAT if each is not USAGE))
    assert quiet.answer().usage.prompt_tokens == 30
    assert public(USAGE) in feed(relay(), *CHAT)


def test_p27_only_the_chunk_without_choices_is_dropped():
    last = text("a", "stop")[:-3] + b', "usage": {"prompt_tokens": 1}}\n\n'
    out = feed(relay(drop_usage=True), text("b"), last, event([]), DONE)
    assert out == public(text("b") + last + event([])) + DONE


def test_p28_kv_parameters_in_chunks_are_taken_out():
    params = {"remote_host": "10.0.0.1"}
    last = event([{"index": 0, "delta": {}, "finish_reason": "stop"}], kv_transfer_params=params)
    for events in ([ROLE, last], [ROLE, CHAT[1], last], [last]):
        out = feed(relay(), *events, DONE)
        assert b"kv_transfer_params" not in out
        assert b"10.0.0.1" not in out
        assert b'"finish_reason":' in out.replace(b" ", b"")


def test_token_ids_are_taken_out_for_a_client_that_did_not_ask():
    stream = relay(asked=IDS)
    first = event([{"index": 0, "text": "a", "token_ids": [1], "prompt_token_ids": [7]}], prompt_token_ids=[7])
    out = feed(stream, first, text("b", "stop", token_ids=[2, 3]), DONE)
    assert out.count(b"token_ids") == out.count(b'token_ids":null') == 4
    assert stream.answer().token_ids == [1, 2, 3]
    assert b"token_ids" in feed(relay(), first)


@pytest.mark.parametrize(
    "tricky",
    [
        'data: {"error": {"message": "x"}}\n\n', "[DONE]", "data: [DONE]\n\n", '"choices":[]',
        '{"choices": [], "usage": 1}',
        '"error"', '{"kv_transfer_params": 1}', "\r\n\r\n", "\\r\\n", "line\u2028separator", "é😀",
    ],
)  # fmt: skip
def test_text_that_looks_like_protocol_is_text(tricky):
    for first in (CHAT[1], text("a")):
        stream = relay(drop_usage=True)
        piece = text(tricky)
        assert feed(stream, first, piece, DONE) == public(first + piece) + DONE
        assert stream.error is None
        assert stream.answer().content.endswith(tricky)


def test_text_that_looks_like_protocol_can_be_the_first_content():
    stream = relay(drop_usage=True)
    piece = text('{"error": "[DONE]", "choices":[]}')
    assert stream.feed(piece) == public(piece)
    assert stream.error is None
    assert not stream.is_done


def test_every_other_byte_passes_as_it_came():
    odd = b'data:{"choices" : [{"index":0,"text":"a", "x":1.0E+5 }], "error": null}  \n\n'
    assert feed(relay(), text("b"), odd) == public(text("b")) + odd


# Borders


def test_crlf_streams_are_understood():
    stream = relay(drop_usage=True)
    out = stream.feed(b"".join(CHAT).replace(b"\n", b"\r\n"))
    assert out == public(b"".join(each for each in CHAT if each is not USAGE))
    assert stream.is_done


STREAMS = {
    "chat": CHAT,
    "crlf": [each.replace(b"\n", b"\r\n") for each in CHAT],
    "failed at once": [ROLE, ERROR, DONE],
    "failed later": [*CHAT[:3], ERROR, DONE],
    "kv": [ROLE, text("é😀"), event([{"index": 0, "finish_reason": "stop"}], kv_transfer_params={"a": 1}), USAGE, DONE],
    "pings": [PING, ROLE, PING, CHAT[1], PING, DONE],
    "scores": [ROLE, text("a", logprobs={"token_logprobs": [-1]}), delta(), delta("stop"), DONE],
    "named": [b"event: x\n" + each for each in CHAT],
    "CR": [each.replace(b"\n", b"\r") for each in CHAT],
    "mixed": [b"\xef\xbb\xbf: hi\r\rid: 1\r\n", ROLE, b": x\n", CHAT[1].replace(b"\n", b"\r"), b"\n\n", CHAT[3], DONE],
    "broken": [*CHAT[:3], b"data: {\n\n", *CHAT[3:]],
    "ids": [text("a", token_ids=[1]), text("b", "stop", token_ids=[2]), USAGE, DONE],
}


def outcome(pieces, **options):
    stream = relay(**options)
    out = feed(stream, *pieces)
    answer = stream.answer()
    said = (answer.content, answer.token_ids, answer.is_finished) if answer is not None else None
    return out, stream.is_decisive, stream.is_done, stream.error, stream.broken, said


@pytest.mark.parametrize("options", [{"drop_usage": True}, {"asked": IDS}, {}], ids=str)
@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)
def test_two_reads_split_at_any_byte_give_the_client_the_same(events, options):
    data = b"".join(events)
    whole = outcome([data], **options)
    assert outcome(events, **options) == whole
    assert outcome([data[index : index + 1] for index in range(len(data))], **options) == whole
    for index in range(len(data)):
        assert outcome([data[:index], data[index:]], **options) == whole, index


@given(
    name=st.sampled_from(sorted(STREAMS)),
    cuts=st.lists(st.integers(0, 1200), max_size=12),
    drop_usage=st.booleans(),
    asked=st.builds(Asked, st.booleans(), st.booleans()),
)
@settings(max_examples=200, deadline=None)
def test_reads_split_anywhere_give_the_client_the_same(name, cuts, drop_usage, asked):
    data = b"".join(STREAMS[name])
    options = {"drop_usage": drop_usage, "asked": asked}
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert outcome(pieces, **options) == outcome([data], **options)


# The whole answer


def test_what_the_stream_said_is_put_together():
    stream = relay()
    feed(stream, *CHAT)
    answer = stream.answer()
    assert (answer.content, answer.is_finished, answer.usage.completion_tokens) == ("hi there", True, 2)


def test_an_answer_too_long_to_keep_is_relayed_all_the_same():
    stream = relay(max_kept_bytes=1000)
    out = feed(stream, *[text("x" * 500)] * 10, DONE)
    assert out.count(b"xxx") > 10
    assert out.endswith(DONE)
    assert stream.answer() is None
    assert stream.raw is None


# Whole HTTP chunks


def test_a_framed_ordinary_chunk_may_pass_as_it_is_and_counts_as_read():
    stream = relay(hidden="same", public="same")
    first, second = text("a"), text("b")
    assert not stream.takes_chunk(framed(first)), "nothing is known of this stream yet"
    stream.feed(first)
    assert stream.takes_chunk(framed(second))
    assert stream.answer().content == "ab"


@pytest.mark.parametrize("asked", [IDS, Asked(False, True), Asked(True, True)], ids=str)
def test_no_chunk_passes_without_a_look_where_something_is_taken_out(asked):
    stream = relay(hidden="same", public="same", asked=asked)
    for piece in "abc":
        out = stream.feed(text(piece, token_ids=[1], logprobs={"token_logprobs": [-1]}))
        assert not stream.takes_chunk(framed(text("d", token_ids=[1])))
        assert (b"[1]" in out, b"[-1]" in out) == (not asked.ids, not asked.logprobs)
    assert stream.raw == b"".join(text(p, token_ids=[1], logprobs={"token_logprobs": [-1]}) for p in "abc")


def test_no_other_chunk_passes_without_a_look():
    stream = relay(hidden="same", public="same", drop_usage=True)
    stream.feed(text("a"))
    whole = framed(text("b"))
    for data in (
        framed(ERROR), framed(DONE), framed(USAGE), framed(text("b")[:-1]), framed(text("b") + text("c")),
        framed(text("b", kv_transfer_params={})), whole[:-1], whole[1:], b"0" + whole, whole + whole, b"0\r\n\r\n", b"",
        whole.replace(b"\r\n", b";x=1\r\n", 1),
    ):  # fmt: skip
        assert not stream.takes_chunk(data), data
    hidden = relay()
    hidden.feed(text("a"))
    assert not hidden.takes_chunk(framed(text("b")))


# Long answers are read while they come


def long_answer(odd=b""):
    words = [f"word {number} " for number in range(4 * READ_BYTES // 200)]
    return words, [ROLE, *(delta(content=word) for word in words), odd, delta("stop"), USAGE, DONE]


def test_a_long_answer_says_the_same_as_its_pieces():
    words, events = long_answer()
    stream = relay()
    assert sum(map(len, events)) > 3 * READ_BYTES
    feed(stream, *events)
    assert stream.answer().content == "".join(words)
    assert stream.answer().is_finished


@pytest.mark.parametrize("at_once", [1, 1000], ids=["one by one", "a thousand at once"])
def test_a_long_answer_is_read_while_it_comes_not_at_its_end(monkeypatch, at_once):
    """Read in one go, 30 MB would stop the loop for a second."""
    sizes_bytes = []

    def noting(stream):
        sizes_bytes.append(len(stream))
        return split_plain(stream)

    monkeypatch.setattr("ppd_wire.dialects.sse.split_plain", noting)
    words, events = long_answer()
    stream = relay()
    feed(stream, *(b"".join(events[start : start + at_once]) for start in range(0, len(events), at_once)))
    assert stream.answer().content == "".join(words)
    most_at_once = max(map(len, events)) * at_once
    assert len(sizes_bytes) > 2
    assert max(sizes_bytes) <= READ_BYTES + most_at_once


def test_an_event_far_from_the_end_that_is_no_json_still_breaks_the_answer():
    _, events = long_answer()
    events[100] = events[100].replace(b'"finish_reason"', b'"finish_reason', 1)
    stream = relay()
    assert DONE not in feed(stream, *events)
    assert stream.broken == "the engine sent an event that is no JSON object"


def test_an_answer_whose_bytes_nobody_wants_says_the_same_and_keeps_little():
    words, events = long_answer()
    stream = SseRelay(hidden_id=b"h", public_id=b"h", drop_usage=False, asked=NOTHING, keeps_raw=False)
    most_bytes = 0
    for each in events:
        stream.feed(each)
        most_bytes = max(most_bytes, sum(map(len, stream._kept)))
    assert stream.answer().content == "".join(words)
    assert most_bytes <= UNKEPT_BYTES + max(map(len, events))
    with pytest.raises(ValueError, match="not kept"):
        assert stream.raw
