"""Received KV: when it is complete, how much of it there may be, and what is remembered of what is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_connector import inbox as inboxes
from ppd_connector.inbox import Entry, Inbox
from ppd_connector.messages import Put

SPANS = st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)).map(lambda each: (each[0], each[0] + each[1])))


def put(key="a", *, layer=0, first=0, end=4, **changes):
    fields = {"sender": "p", "prompt": "x", "from_token": 0, "total_tokens": 12, "payload_bytes": 0}
    fields |= {"key": key, "layer": layer, "first_token": first, "end_token": end, **changes}
    return Put(fingerprint="f", checksum=None, **fields)


def add(inbox, *args, size=10, now=0.0, **changes):
    return inbox.add(put(*args, payload_bytes=size, **changes), memoryview(bytes(size)), now)


@given(st.lists(SPANS, min_size=1, max_size=3), st.integers(0, 11), st.integers(1, 12))
def test_complete_is_when_every_layer_has_every_token(spans, first, length):
    """In whatever order and however often they come."""
    came = [(layer, start, end) for layer, each in enumerate(spans) for start, end in each]
    entry = Entry(sender="p", prompt="x", from_token=0, total_tokens=24, spans=came)
    wanted = set(range(first, first + length))
    covered = [{token for start, end in each for token in range(start, end)} for each in spans]
    assert entry.is_complete(len(spans), first, first + length) is all(wanted <= each for each in covered)
    assert not entry.is_complete(len(spans) + 1, first, first + length), "a layer of which nothing came"


def test_what_is_kept_is_counted_and_given_back():
    inbox = Inbox(100)
    assert add(inbox, now=1.0) is None
    assert add(inbox, layer=1, now=2.0) is None
    assert add(inbox, "b", size=7) is None
    entry = inbox.get("a")
    assert (entry.held_bytes, entry.first_at, entry.latest_at, len(entry.parts)) == (20, 1.0, 2.0, 2)
    assert (inbox.held_bytes, len(inbox)) == (27, 2)
    assert inbox.finish("a") is entry
    assert (inbox.held_bytes, len(inbox), inbox.get("a")) == (7, 1, None)
    assert inbox.finish("a") is None


def test_latecomers_are_refused():
    inbox = Inbox(100)
    inbox.finish("a")
    assert inbox.is_finished("a")
    assert add(inbox) == "gone"
    assert (inbox.held_bytes, len(inbox)) == (0, 0)


def test_the_limit_holds_and_ends_the_entry():
    inbox = Inbox(30)
    assert add(inbox, "a", size=10) is None
    assert add(inbox, "b", size=20) is None
    assert add(inbox, "b", layer=1, size=1) == "full"
    assert inbox.held_bytes == 10
    assert add(inbox, "b", layer=2, size=1) == "full", "it can no longer become complete"
    assert inbox.get("b").refusal == "full"
    assert inbox.held_bytes == 10
    assert add(inbox, "c", size=20) is None


@pytest.mark.parametrize("change", [{"sender": "q"}, {"prompt": "y"}, {"from_token": 4}, {"total_tokens": 13}])
def test_parts_of_one_transfer_agree(change):
    inbox = Inbox(100)
    add(inbox)
    assert add(inbox, layer=1, **change) == "mismatch"
    assert inbox.held_bytes == 0
    assert add(inbox, layer=1) == "mismatch"


def test_the_first_refusal_stays():
    inbox = Inbox(100)
    add(inbox)
    assert inbox.refuse("a", "checksum") == "checksum"
    inbox.refuse("a", "mismatch")
    assert inbox.get("a").refusal == "checksum"
    assert inbox.refuse("unknown", "full") == "full"
    assert inbox.get("unknown") is None


def test_what_is_not_added_to_expires():
    inbox = Inbox(100)
    add(inbox, "a", now=0.0)
    add(inbox, "b", now=1.0)
    assert inbox.expired(9.9, 10.0) == []
    assert inbox.expired(10.0, 10.0) == ["a"]
    add(inbox, "a", layer=1, now=10.0)
    assert inbox.expired(11.0, 10.0) == ["b"]


def test_finished_keys_are_forgotten_at_last(monkeypatch):
    monkeypatch.setattr(inboxes, "_MAX_FINISHED_KEYS", 3)
    inbox = Inbox(100)
    for key in "abcd":
        inbox.finish(key)
    assert [inbox.is_finished(key) for key in "abcd"] == [False, True, True, True]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "refuse", "finish"]), st.integers(1, 9))))
def test_held_bytes_are_those_of_the_parts_and_within_the_limit(events):
    inbox = Inbox(30)
    for number, (key, event, size) in enumerate(events):
        if event == "add":
            add(inbox, key, layer=number, size=size)
        elif event == "refuse":
            inbox.refuse(key, "checksum")
        else:
            inbox.finish(key)
        entries = [entry for entry in map(inbox.get, "abc") if entry is not None]
        assert inbox.held_bytes == sum(len(part.payload) for entry in entries for part in entry.parts) <= 30
        assert all(not entry.parts for entry in entries if entry.refusal)
