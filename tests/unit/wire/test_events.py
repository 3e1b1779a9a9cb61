"""Server-sent events by the standard, and that no cut of the bytes changes them."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_wire.events import MAX_EVENT_BYTES, EventReader, frame, payloads

BOM = b"\xef\xbb\xbf"


def read(*pieces):
    """Name and data of what is an event to a client."""
    return [(event.name, event.data) for event in whole(*pieces) if event.data]


def whole(*pieces):
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


STREAMS = {
    "as vLLM writes it": (b'data: {"a": 1}\n\ndata: [DONE]\n\n', [(b"", b'{"a": 1}'), (b"", b"[DONE]")]),
    "no space": (b"data:x\n\n", [(b"", b"x")]),
    "one space is not data, two are": (b"data:  x\n\n", [(b"", b" x")]),
    "several data lines": (b"data: a\ndata: b\ndata\ndata:c\n\n", [(b"", b"a\nb\n\nc")]),
    "name first": (b"event: error\ndata: x\n\n", [(b"error", b"x")]),
    "name last": (b"data: x\nevent:error\n\n", [(b"error", b"x")]),
    "the last name counts": (b"event: a\nevent: b\ndata: x\n\n", [(b"b", b"x")]),
    "id and retry": (b"id: 1\ndata: x\n\nretry: 10\ndata: y\n\n", [(b"", b"x"), (b"", b"y")]),
    "fields nobody knows": (b"Data: no\ndatax: no\nfoo\ndata: x\n<h1>: no\n\n", [(b"", b"x")]),
    "comments around": (b": hi\ndata: x\n:\n\n: alone\n\ndata: y\n\n", [(b"", b"x"), (b"", b"y")]),
    "a name without data": (b"event: x\n\ndata: y\n\n", [(b"", b"y")]),
    "empty data": (b"data\n\ndata:\n\ndata: x\n\n", [(b"", b"x")]),
    "CRLF": (b"event: a\r\ndata: x\r\n\r\ndata: y\r\n\r\n", [(b"a", b"x"), (b"", b"y")]),
    "CR": (b"event: a\rdata: x\r\rdata: y\r\r", [(b"a", b"x"), (b"", b"y")]),
    "mixed ends": (b"data: x\r\n\ndata: y\n\r\ndata: z\r\r\ndata: w\n\r", [(b"", each.encode()) for each in "xyzw"]),
    "BOM": (BOM + b"data: x\n\n" + BOM + b"data: y\n\n", [(b"", b"x")]),
    "empty lines": (b"\n\n\ndata: x\n\n\n\n\ndata: y\n\n\n", [(b"", b"x"), (b"", b"y")]),
    "unfinished": (b"data: x\n\ndata: y\n", [(b"", b"x")]),
    "other text": (b"<html>\n<p>data: x</p>\n\n</html>\n\n", []),
    "nothing": (b"", []),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_w5_events_are_read_by_field_however_the_bytes_are_cut(stream, events):
    assert read(stream) == events
    unsplit = whole(stream)
    assert whole(*(stream[at : at + 1] for at in range(len(stream)))) == unsplit
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert whole(stream[:first], stream[first:second], stream[second:]) == unsplit


PIECES = [b"data: x", b"data:", b":c", b"event: e", b"\n", b"\r", b"\r\n", BOM]


@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=20),
    cuts=st.lists(st.integers(0, 160), max_size=10),
)
@settings(max_examples=300, deadline=None)
def test_w5_no_cut_of_any_stream_changes_its_events(pieces, cuts):
    stream = b"".join(pieces)
    ends = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert whole(*(stream[a:b] for a, b in pairwise(ends))) == whole(stream)


def test_w5_an_event_keeps_its_other_fields_when_its_data_changes():
    (event,) = whole(b": why\nevent: e\ndata: a\nid: 7\ndata: b\n\n")
    changed = event.with_data(b"new")
    assert (changed.name, changed.data) == (b"e", b"new")
    assert whole(changed.raw) == [changed]
    assert {b": why", b"event: e", b"id: 7", b"data: new"} == set(changed.raw.strip().split(b"\n"))


@pytest.mark.parametrize("step", [1 << 16, MAX_EVENT_BYTES + 100])
@pytest.mark.parametrize("end", [b"", b"\n\n"], ids=["without end", "ended"])
def test_s1_an_event_that_is_too_long_is_refused_and_what_came_before_it_is_not(step, end):
    stream = b"data: x\n\ndata: " + b"y" * MAX_EVENT_BYTES + end + b"data: z\n\n"
    reader = EventReader()
    events = [event for at in range(0, len(stream), step) for event in reader.feed(stream[at : at + step])]
    assert [event.data for event in events] == [b"x"]
    assert reader.is_too_long
    assert not reader.unfinished


def test_s1_an_event_of_the_longest_length_passes():
    assert read(b"data: " + b"y" * (MAX_EVENT_BYTES - 6) + b"\n", b"\n") != []


def test_s1_the_work_is_linear_in_the_bytes_however_small_the_reads_are():
    """Quadratic, 4 MB in reads of 100 bytes would move 84 GB."""
    reader, piece = EventReader(), b"y" * 100
    started = time.process_time()
    for _ in range(MAX_EVENT_BYTES // len(piece)):
        reader.feed(piece)
    assert time.process_time() - started < 2
    assert not reader.is_too_long


@pytest.mark.parametrize("name", [b"", b"error"])
def test_what_is_framed_is_read_as_one_event(name):
    [event] = whole(frame(b'{"a": 1}', name))
    assert (event.name, event.data) == (name, b'{"a": 1}')


def test_payloads_are_the_data_of_a_whole_stream_without_its_end():
    stream = b'data: {"a": 1}\n\n: a comment\n\ndata:{"b": 2} \n\ndata: [DONE]\n\n'
    assert payloads(stream) == [b'{"a": 1}', b'{"b": 2}']
    assert payloads(b"") == []
