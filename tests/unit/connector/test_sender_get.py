"""GET over loopback: the producer keeps finished KV until it is fetched, and says what became of it."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.connector.kv_engines import KEY, fill, key_of, load_of, save_of
from tests.support.connector.memory_store import MemoryStore, some_kv

from ppd_connector.messages import Abort, Done, Get, Put

TOTAL = 21
P_BLOCKS, D_BLOCKS = (9, 3, 40, 1, 17, 22), (5, 2, 11)
BYTES_PER_TOKEN = MemoryStore().geometry.bytes_per_token
ID = f"p-{KEY}"


@pytest.fixture
def pair(engine):
    def start(d_settings=(), **changes):
        p = engine("kv_producer", send_type="GET", **changes)
        d_changes = {**changes, **dict(d_settings)}
        return p, engine("kv_consumer", MemoryStore(block_tokens=8, blocks=16, seed=2), send_type="GET", **d_changes)

    return start


def offer(p, d, key=KEY, *, is_held=True):
    save = save_of(d.address, P_BLOCKS, TOTAL, key=key)
    p.do(lambda now: p.sender.offer(save, now))
    if is_held:
        hold(p, save.request_id)


def hold(p, *request_ids):
    p.do(lambda now: p.sender.hold(list(request_ids), now))


def is_all_there(d, kv, first=0):
    expected = MemoryStore(block_tokens=8, blocks=16, seed=2)
    fill(expected, D_BLOCKS, [[plane[:, first:] for plane in planes] for planes in kv], first)
    return all(
        np.array_equal(found, wanted)
        for layer in range(len(kv))
        for found, wanted in zip(d.store.cache[layer], expected.cache[layer], strict=True)
    )


@pytest.mark.parametrize("first", [0, 8, 16, 20])
def test_only_what_is_missing_is_fetched(pair, first):
    (p, d), kv = pair(), some_kv(TOTAL)
    fill(p.store, P_BLOCKS, kv)
    offer(p, d)
    d.load(load_of(p.address, D_BLOCKS, TOTAL, first=first))
    assert d.result().failed_blocks == ()
    assert is_all_there(d, kv, first)
    assert d.is_clean()
    assert p.is_clean()
    assert list(p.sender.finished) == [ID]
    ((*_, recv_bytes, recv_s, recv_blocks, recv_skipped),) = d.figures.take()["moved"]
    ((*_, sent_bytes, sent_s, sent_blocks, sent_skipped),) = p.figures.take()["moved"]
    assert recv_bytes == sent_bytes == (TOTAL - first) * BYTES_PER_TOKEN
    assert (recv_blocks, recv_skipped) == (3 - first // 8, first // 8)
    assert (sent_blocks, sent_skipped) == (6 - first // 4, first // 4)
    assert recv_s > 0
    assert sent_s > 0
    assert {(put.first_token, put.end_token) for put in d.heard if isinstance(put, Put)} == {(first, TOTAL)}


def test_who_asks_before_the_blocks_are_kept_is_served_once_they_are(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    fill(p.store, P_BLOCKS, kv)
    offer(p, d, is_held=False)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    p.until(lambda: p.has_heard(Get))
    assert not d.heard
    assert not p.sender.finished
    hold(p, ID)
    assert d.result().failed_blocks == ()
    assert is_all_there(d, kv)
    assert p.is_clean()
    assert list(p.sender.finished) == [ID]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_the_scheduler_frees_is_not_served(pair, when):
    p, d = pair()
    offer(p, d, is_held=False)
    if when == "before":
        p.do(lambda now: p.sender.drop([ID]))
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    if when == "after":
        p.until(lambda: p.has_heard(Get))
        p.do(lambda now: p.sender.drop([ID]))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.failures() == {("recv", "gone" if when == "before" else "aborted"): 1}
    assert d.is_clean()
    assert p.is_clean()
    assert not p.sender.finished, "nobody waits for these blocks"


def test_an_unknown_key_is_refused_at_once(pair):
    p, d = pair()
    d.load(load_of(p.address, D_BLOCKS, TOTAL, key=key_of(77)))
    assert d.result().failed_blocks == D_BLOCKS
    assert (p.failures(), d.failures()) == ({("send", "gone"): 1}, {("recv", "gone"): 1})


@pytest.mark.parametrize("is_held", [False, True])
def test_the_lease_ends(pair, is_held):
    """Blocks are reported when the scheduler has said that it keeps them, and not before."""
    p, d = pair(lease_s=0.1)
    offer(p, d, is_held=is_held)
    p.until(lambda: all(each.is_done for each in p.sender._offers.values()))
    assert p.failures() == {("send", "expired"): 1}
    assert list(p.sender.finished) == ([ID] if is_held else [])
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.failures() == {("recv", "gone"): 1}
    if not is_held:
        hold(p, ID)
    assert list(p.sender.finished) == [ID]
    assert p.is_clean()


def test_who_waits_for_the_blocks_is_told_when_the_lease_ends(pair):
    p, d = pair(lease_s=0.2)
    offer(p, d, is_held=False)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.failures() == {("recv", "expired"): 1}


@pytest.mark.parametrize("change", [{"prompt": "another"}, {"end": TOTAL + 1}, {"model": "another"}])
def test_what_does_not_fit_is_refused(engine, pair, change):
    p, d = pair()
    if "model" in change:
        d = engine("kv_consumer", MemoryStore(block_tokens=8, model="another"), send_type="GET")
    offer(p, d)
    wanted = {"end": TOTAL, "prompt": "prompt"} | {name: value for name, value in change.items() if name != "model"}
    d.load(load_of(p.address, D_BLOCKS, **wanted))
    assert d.result().failed_blocks == D_BLOCKS
    assert (p.failures(), d.failures()) == ({("send", "mismatch"): 1}, {("recv", "mismatch"): 1})
    assert p.is_clean(), "the consumer needs nothing more of it"
    assert list(p.sender.finished) == [ID]


def test_nobody_needs_it(pair):
    p, d = pair()
    offer(p, d)
    d.do(lambda now: d.receiver.release("", KEY, p.address))
    assert p.is_clean()
    assert p.has_heard(Done)
    assert list(p.sender.finished) == [ID]
    assert (p.failures(), d.failures()) == ({}, {})


def test_a_prefix_that_is_not_held_is_counted_though_nothing_came(pair):
    p, d = pair()
    d.do(lambda now: d.receiver.release("", KEY, p.address, "prefix_not_held"))
    assert d.failures() == {("recv", "prefix_not_held"): 1}


def test_blocks_of_a_request_that_offered_nothing_are_freed(pair):
    p, _ = pair()
    hold(p, "unknown")
    assert list(p.sender.finished) == ["unknown"]


def test_what_does_not_fit_the_buffer_is_given_back_oldest_first(pair):
    p, d = pair(buffer_bytes=2 * TOTAL * BYTES_PER_TOKEN)
    for number in (1, 2, 3):
        offer(p, d, key_of(number))
    assert list(p.sender.finished) == [ID]
    assert p.failures() == {("send", "full"): 1}
    assert set(p.sender._offers) == {key_of(2), key_of(3)}


def test_one_request_larger_than_the_buffer_is_kept_all_the_same(pair):
    p, d = pair(buffer_bytes=1)
    offer(p, d)
    assert set(p.sender._offers) == {KEY}
    offer(p, d, key_of(2))
    assert set(p.sender._offers) == {key_of(2)}


def freeze(p):
    """Let nothing leave: what is served waits for its turn."""
    p.do(lambda now: setattr(p.sender._outbox, "due", lambda now: ()))


def test_a_consumer_is_told_when_what_it_fetches_goes(pair):
    """The buffer is full: the oldest goes, though it is being fetched; its consumer need not wait for a timeout."""
    p, d = pair(buffer_bytes=TOTAL * BYTES_PER_TOKEN)
    freeze(p)
    offer(p, d)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    p.until(lambda: p.sender._outbox.sendings)
    offer(p, d, key_of(2))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.failures() == {("recv", "full"): 1}
    assert list(p.sender.finished) == [ID]


def test_a_consumer_that_is_done_stops_what_is_on_its_way(pair):
    p, d = pair()
    freeze(p)
    offer(p, d)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    p.until(lambda: p.sender._outbox.sendings)
    d.do(lambda now: d.receiver.release(f"d-{KEY}", KEY, p.address))
    assert p.is_clean()
    assert list(p.sender.finished) == [ID]
    assert d.result().failed_blocks == ()
    assert not [message for message in d.heard if isinstance(message, Abort)], "it knows"


def test_who_asks_is_there_so_no_fence_keeps_it_from_an_answer(pair):
    (p, d), kv = pair(fence_s=60.0), some_kv(TOTAL)
    fill(p.store, P_BLOCKS, kv)
    p.do(lambda now: p.sender._fences.raise_for(d.address, now))
    offer(p, d)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()
    assert is_all_there(d, kv)


def test_asking_twice_is_answered_once(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    fill(p.store, P_BLOCKS, kv)
    offer(p, d, is_held=False)
    load = load_of(p.address, D_BLOCKS, TOTAL)
    d.load(load)
    get = Get(key=load.key, sender=d.address, fingerprint=d.store.geometry.fingerprint, prompt=load.prompt,
              first_token=0, end_token=TOTAL)  # fmt: skip
    d.do(lambda now: d.endpoint.send(d.receiver._route(p.address), get))
    p.until(lambda: p.has_heard(Get, 2))
    hold(p, ID)
    assert d.result().failed_blocks == ()
    assert p.is_clean()
    assert sum(isinstance(message, Put) for message in d.heard) == len(kv)


def test_a_dead_producer_costs_one_timeout_and_is_then_left_alone(pair, silent_address):
    _, d = pair(timeout_s=0.2, fence_s=60.0)
    d.load(load_of(silent_address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == D_BLOCKS
    ended_at = d.do(lambda now: now)
    d.load(load_of(silent_address, D_BLOCKS, TOTAL, key=key_of(2)))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.do(lambda now: now) - ended_at < 0.2
    assert d.failures() == {("recv", "timeout"): 1, ("recv", "fenced"): 1}
    assert d.is_clean()


def test_a_consumer_that_stops_taking_costs_the_lease_only(pair):
    """It asked and went silent: what it was served goes after a timeout, its blocks at the end of the lease."""
    p, d = pair(timeout_s=0.1, lease_s=0.3, d_settings={"timeout_s": 10.0})
    offer(p, d)
    d.do(lambda now: setattr(d.receiver, "put", lambda *_: None))
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    p.until(lambda: p.sender.finished)
    assert p.is_clean()
    assert p.failures()[("send", "timeout")] == 1


def test_two_requests_under_one_key_both_give_their_blocks_back(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    fill(p.store, P_BLOCKS, kv)
    offer(p, d)
    other = replace(save_of(d.address, P_BLOCKS, TOTAL), request_id="other")
    p.do(lambda now: p.sender.offer(other, now))
    hold(p, "other")
    assert list(p.sender.finished) == ["other"]
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()
    assert p.is_clean()
    assert list(p.sender.finished) == ["other", ID]
