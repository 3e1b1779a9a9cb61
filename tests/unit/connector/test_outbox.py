"""What may leave now, how long a peer may be silent, and what time a transfer took: on a made-up clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_connector.messages import Put
from ppd_connector.outbox import WINDOW_BYTES, Fences, Outbox, Parcel, Sending
from ppd_connector.route import Route, rank_address

ROUTE, OTHER = Route("d1:1"), Route("d2:1")


def parcel(key="a", layer=0, first=0, size=10, route=ROUTE):
    put = Put(
        key=key, sender="p", fingerprint="f", prompt="", layer=layer, first_token=first, end_token=first + 1,
        from_token=0, total_tokens=9, payload_bytes=size, checksum=None,
    )  # fmt: skip
    return Parcel(route=route, put=put, read=lambda: memoryview(b""))


def outbox(*keys, timeout_s=5.0, route=ROUTE):
    box = Outbox(timeout_s)
    for key in keys or ("a",):
        box.open(Sending(key=key, peer="d1:1", route=route))
    return box


def due(box, now=0.0):
    return [(each.put.key, each.put.layer) for each in box.due(now)]


def is_empty(box):
    return not (box.sendings or box._lanes or box.waiting_bytes)


def test_parcels_leave_in_order_once():
    box = outbox()
    for layer in range(3):
        box.queue(parcel(layer=layer))
    assert box.waiting_bytes == 30
    assert due(box) == [("a", 0), ("a", 1), ("a", 2)]
    assert due(box) == []
    assert box.waiting_bytes == 30, "held until they are acknowledged"


def test_the_window_bounds_what_is_under_way_to_one_peer():
    box = outbox("a")
    box.open(Sending(key="b", peer="d2:1", route=OTHER))
    half = WINDOW_BYTES // 2
    for layer in range(3):
        box.queue(parcel(layer=layer, size=half))
    box.queue(parcel("b", size=half, route=OTHER))
    assert due(box) == [("a", 0), ("a", 1), ("b", 0)]
    box.acknowledged(ROUTE, "a", 1, 0, 1.0)
    assert due(box) == [("a", 2)]


def test_one_parcel_larger_than_the_window_leaves_alone():
    box = outbox()
    box.queue(parcel(size=WINDOW_BYTES + 1))
    box.queue(parcel(layer=1))
    assert due(box) == [("a", 0)]
    box.acknowledged(ROUTE, "a", 0, 0, 1.0)
    assert due(box) == [("a", 1)]


def test_time_counts_while_something_is_under_way():
    box = outbox()
    box.queue(parcel(layer=0))
    box.queue(parcel(layer=1))
    due(box, 10.0)
    box.acknowledged(ROUTE, "a", 1, 0, 11.0)
    sending = box.acknowledged(ROUTE, "a", 0, 0, 12.0)
    assert (sending.seconds, sending.moved_bytes, sending.is_over) == (2.0, 20, False)
    box.queue(parcel(layer=2))
    sending.is_whole = True
    assert not sending.is_over
    due(box, 100.0)
    assert box.acknowledged(ROUTE, "a", 2, 0, 100.5) is sending
    assert (sending.seconds, sending.moved_bytes, sending.is_over) == (2.5, 30, True)
    box.close("a")
    assert is_empty(box)


@pytest.mark.parametrize("ack", [("b", 0, 0), ("a", 1, 0), ("a", 0, 3)])
def test_an_acknowledgement_of_nothing_that_is_under_way_says_nothing(ack):
    box = outbox()
    box.queue(parcel())
    assert box.acknowledged(ROUTE, "a", 0, 0, 0.0) is None, "not sent yet"
    due(box)
    assert box.acknowledged(ROUTE, *ack, 1.0) is None
    assert box.acknowledged(OTHER, "a", 0, 0, 1.0) is None
    assert box.acknowledged(ROUTE, "a", 0, 0, 1.0) is not None
    assert box.acknowledged(ROUTE, "a", 0, 0, 1.0) is None, "once"


def test_a_closed_transfer_sends_no_more_and_keeps_its_place_until_acknowledged():
    box = outbox("a", "b")
    for layer in range(2):
        box.queue(parcel(layer=layer, size=WINDOW_BYTES))
    box.queue(parcel("b"))
    assert due(box) == [("a", 0)]
    assert box.close("a", "aborted").refusal == "aborted"
    assert box.close("a") is None
    box.queue(parcel(layer=2))
    assert due(box) == []
    assert box.waiting_bytes == WINDOW_BYTES + 10
    assert box.acknowledged(ROUTE, "a", 0, 0, 1.0) is None
    assert due(box) == [("b", 0)]
    box.acknowledged(ROUTE, "b", 0, 0, 1.0)
    box.close("b")
    assert is_empty(box)


def test_closing_before_anything_left_leaves_nothing():
    box = outbox()
    box.queue(parcel())
    box.close("a")
    assert is_empty(box)


def test_silence_counts_from_the_last_word_and_only_while_something_is_under_way():
    box = outbox()
    assert box.silent(1e9) == []
    assert box.next_at(0.0) is None
    box.queue(parcel(layer=0))
    box.queue(parcel(layer=1))
    assert box.silent(1e9) == [], "nothing was sent yet"
    due(box, 10.0)
    assert box.next_at(10.0) == 15.0
    assert box.silent(14.9) == []
    box.acknowledged(ROUTE, "a", 0, 0, 14.0)
    assert box.next_at(14.0) == 19.0
    assert box.silent(18.9) == []
    assert box.silent(19.0) == [ROUTE]


def test_the_limit_starts_anew_after_a_pause():
    box = outbox()
    box.queue(parcel())
    due(box, 0.0)
    box.acknowledged(ROUTE, "a", 0, 0, 1.0)
    box.queue(parcel(layer=1))
    due(box, 100.0)
    assert box.silent(104.9) == []
    assert box.silent(105.0) == [ROUTE]


def test_cutting_a_route_ends_its_transfers_and_no_others():
    box = outbox("a", "b")
    box.open(Sending(key="c", peer="d2:1", route=OTHER))
    for each in (parcel("a"), parcel("b"), parcel("b", layer=1), parcel("c", route=OTHER)):
        box.queue(each)
    due(box)
    box.queue(parcel("a", layer=1))
    assert [sending.key for sending in box.cut(ROUTE)] == ["a", "b"]
    assert box.cut(ROUTE) == []
    assert box.waiting_bytes == 10
    assert box.acknowledged(ROUTE, "a", 0, 0, 1.0) is None
    assert list(box.sendings) == ["c"]


def test_a_throttle_paces():
    """1000 bytes each at 500 bytes per second: one every two seconds, and no burst after a pause."""
    box, left_at, now = outbox(), {}, 0.0
    box.bytes_per_s = 500.0
    for layer in range(4):
        box.queue(parcel(layer=layer, size=1000))
    while len(left_at) < 4:
        left_at.update({layer: now for _, layer in due(box, now)})
        now = min(box.next_at(now), now + 1.0) if box.next_at(now) > now else now + 0.25
    assert left_at == {0: 0.0, 1: 2.0, 2: 4.0, 3: 6.0}
    for layer in (4, 5):
        box.queue(parcel(layer=layer, size=1000))
    assert due(box, 100.0) == [("a", 4)]
    assert box.next_at(100.0) == 5.0, "the first is waited for longest"
    assert due(box, 101.9) == []
    assert due(box, 102.0) == [("a", 5)]
    box.bytes_per_s = None
    box.queue(parcel(layer=6, size=1000))
    assert due(box, 102.0) == [("a", 6)]


def test_a_throttle_lets_a_peer_know_when_to_look_again():
    box = outbox(timeout_s=60.0)
    box.bytes_per_s = 10.0
    box.queue(parcel(layer=0, size=100))
    box.queue(parcel(layer=1, size=100))
    assert due(box, 3.0) == [("a", 0)]
    assert box.next_at(3.0) == 13.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["queue", "ack", "close", "cut"])), max_size=40))
def test_nothing_is_counted_twice_or_lost(events):
    """Whatever happens in whatever order: the bytes are those of the parcels that wait or are under way."""
    box, layer = outbox("a", "b", "c"), 0
    for now, (key, event) in enumerate(events):
        box.open(Sending(key=key, peer="d1:1", route=ROUTE))
        if event == "queue":
            box.queue(parcel(key, layer=layer))
            layer += 1
        elif event == "close":
            box.close(key)
        elif event == "cut":
            box.cut(ROUTE)
        else:
            due(box, float(now))
            lane = box._lanes.get(ROUTE)
            if lane is not None and lane.under_way:
                put = lane.under_way[-1].put
                box.acknowledged(ROUTE, put.key, put.layer, put.first_token, float(now))
        lanes = box._lanes.values()
        assert box.waiting_bytes == sum(10 * (len(lane.waiting) + len(lane.under_way)) for lane in lanes)
        assert all(lane.window_bytes == 10 * len(lane.under_way) for lane in lanes)
        assert all(lane.waiting or lane.under_way for lane in lanes)


def test_a_fence_stands_for_its_time_or_until_it_is_lifted():
    fences = Fences(10.0)
    assert not fences.stands("d", 0.0)
    fences.raise_for("d", 5.0)
    assert fences.stands("d", 14.9)
    assert not fences.stands("e", 14.9)
    assert not fences.stands("d", 15.0)
    fences.raise_for("d", 20.0)
    fences.lift("d")
    fences.lift("d")
    assert not fences.stands("d", 20.0)


@pytest.mark.parametrize(
    ("address", "rank", "found"), [("h:5", 0, "h:5"), ("h:5", 3, "h:8"), ("[::1]:5", 1, "[::1]:6")]
)
def test_every_rank_has_its_own_port(address, rank, found):
    assert rank_address(address, rank) == found
