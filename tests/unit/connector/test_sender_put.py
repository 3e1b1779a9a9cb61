"""PUT and PUT_ASYNC over loopback: what arrives where, what is told, and that nothing stays behind."""

import numpy as np
import pytest
from tests.support.connector.kv_engines import KEY, fill, holds, key_of, load_of, save_of
from tests.support.connector.memory_store import MemoryStore, some_kv

from ppd_connector.messages import Ack, Put, Sent

TOTAL = 21
CHUNKS = ((0, 6), (6, 16), (16, TOTAL))
P_BLOCKS, D_BLOCKS = (9, 3, 40, 1, 17, 22), (5, 2, 11)
BYTES_PER_TOKEN = MemoryStore().geometry.bytes_per_token


def d_store(seed=2):
    return MemoryStore(block_tokens=8, blocks=16, seed=seed)


@pytest.fixture
def pair(engine):
    def start(send_type="PUT_ASYNC", d_settings=(), **changes):
        p = engine("kv_producer", send_type=send_type, **changes)
        d = engine("kv_consumer", d_store(), send_type=send_type, **{**changes, **dict(d_settings)})
        return p, d

    return start


def put_chunk(p, d, kv, first, end, *, total=TOTAL, from_token=0, key=KEY):
    """Compute tokens `first` to `end` and send them."""
    fill(p.store, P_BLOCKS, [[plane[:, first:end] for plane in planes] for planes in kv], first)
    blocks = P_BLOCKS[: -(-end // p.store.block_tokens)]
    p.put(save_of(d.address, blocks, end, first=first, from_token=from_token, total=total, key=key))


def is_all_there(d, kv, first=0, end=TOTAL):
    """Exactly these tokens, and nothing else in the whole cache has changed."""
    expected = d_store()
    fill(expected, D_BLOCKS, [[plane[:, first:end] for plane in planes] for planes in kv], first)
    return all(
        np.array_equal(found, wanted)
        for layer in range(len(kv))
        for found, wanted in zip(d.store.cache[layer], expected.cache[layer], strict=True)
    )


@pytest.mark.parametrize("send_type", ["PUT", "PUT_ASYNC"])
@pytest.mark.parametrize("chunks_before_load", [0, 1, 3])
def test_chunks_land_in_the_right_slots_and_nowhere_else(pair, send_type, chunks_before_load):
    (p, d), kv = pair(send_type), some_kv(TOTAL)
    for index, (first, end) in enumerate(CHUNKS):
        if index == chunks_before_load:
            d.load(load_of(p.address, D_BLOCKS, TOTAL))
        put_chunk(p, d, kv, first, end)
        if send_type == "PUT":
            assert p.sender.wait_until_sent()
            assert d.has_heard(Put, (index + 1) * len(kv))
    if chunks_before_load == len(CHUNKS):
        d.until(lambda: d.receiver.held_bytes == TOTAL * BYTES_PER_TOKEN)
        d.load(load_of(p.address, D_BLOCKS, TOTAL))
    result = d.result()
    assert (result.request_id, result.failed_blocks) == (f"d-{KEY}", ())
    assert is_all_there(d, kv)
    assert d.store.flushes == 1
    assert p.is_clean()
    assert d.is_clean()
    assert not d.receiver.results


def test_what_was_sent_is_not_what_the_blocks_hold_later(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    put_chunk(p, d, kv, 0, TOTAL)
    fill(p.store, P_BLOCKS, some_kv(TOTAL, seed=99))
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    d.result()
    assert is_all_there(d, kv)


@pytest.mark.parametrize("computed", [8, 16])
def test_what_the_consumer_has_is_neither_sent_nor_overwritten(pair, computed):
    """8 tokens are left out; of what comes, the consumer may need less."""
    (p, d), kv = pair(), some_kv(TOTAL)
    put_chunk(p, d, kv, 8, TOTAL, from_token=8)
    d.load(load_of(p.address, D_BLOCKS, TOTAL, first=computed))
    assert d.result().failed_blocks == ()
    assert is_all_there(d, kv, first=computed)
    assert d.is_clean()
    assert d.request_figures[f"d-{KEY}"].moved_bytes == 13 * BYTES_PER_TOKEN
    assert d.request_figures[f"d-{KEY}"].skipped_blocks == computed // 8


def test_a_consumer_that_lost_what_was_left_out_computes_all_of_it(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    put_chunk(p, d, kv, 8, TOTAL, from_token=8)
    d.load(load_of(p.address, D_BLOCKS, TOTAL, first=4))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.failures() == {("recv", "prefix_not_held"): 1}
    assert d.is_clean()


def test_the_failed_blocks_are_those_that_were_to_be_filled(pair):
    p, d = pair(timeout_s=0.2)
    d.load(load_of(p.address, D_BLOCKS, TOTAL, first=8))
    assert d.result().failed_blocks == D_BLOCKS[1:]


def test_figures_add_up_on_both_sides(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    for first, end in CHUNKS:
        put_chunk(p, d, kv, first, end)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    d.result()
    assert d.is_clean()
    ((direction, peer, transfers, kv_bytes, seconds, blocks, skipped),) = d.figures.take()["moved"]
    assert (direction, peer, transfers, kv_bytes) == ("recv", p.address, 1, TOTAL * BYTES_PER_TOKEN)
    assert (blocks, skipped) == (3, 0)
    cost = d.request_figures[f"d-{KEY}"]
    assert cost == (TOTAL * BYTES_PER_TOKEN, seconds, 3, 0)
    ((direction, peer, transfers, kv_bytes, sent_s, blocks, skipped),) = p.figures.take()["moved"]
    assert (direction, peer, transfers, kv_bytes) == ("send", d.address, 1, TOTAL * BYTES_PER_TOKEN)
    assert (blocks, skipped) == (6, 0), "a block that two chunks share is one block"
    (sent,) = [message for message in d.heard if isinstance(message, Sent)]
    assert sent.seconds == sent_s > 0
    assert seconds >= sent_s, "the receiver adds what putting it into the cache took"


def test_seconds_leave_out_the_time_between_chunks(pair):
    """The second chunk comes when all of the first was acknowledged, and much later as the outbox sees it."""
    (p, d), kv = pair(), some_kv(TOTAL)
    put_chunk(p, d, kv, 0, 6)
    p.until(lambda: p.has_heard(Ack, len(kv)))
    sending = p.do(lambda now: p.sender._outbox.sendings[KEY])
    assert sending.under_way == 0
    first_chunk_s = sending.seconds
    assert first_chunk_s > 0
    for _ in range(50):
        p.do(lambda now: None)
    assert p.do(lambda now: sending.seconds) == first_chunk_s
    put_chunk(p, d, kv, 6, TOTAL)
    p.until(lambda: not p.sender._outbox.sendings)
    assert sending.seconds > first_chunk_s


def test_a_consumer_counts_by_itself_when_the_sender_does_not_say_how_long(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    d.do(lambda now: setattr(d.receiver, "sent", lambda message: None))
    put_chunk(p, d, kv, 0, TOTAL)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    d.result()
    assert d.is_clean()
    ((*_, transfers, _, seconds, _, _),) = d.figures.take()["moved"]
    assert (transfers, seconds > 0) == (1, True)


def test_many_transfers_at_once_do_not_mix(pair):
    (p, d), keys = pair(), [key_of(number) for number in range(1, 13)]
    contents = {key: some_kv(4, seed=number) for number, key in enumerate(keys)}
    for number, key in enumerate(keys):
        fill(p.store, (number,), contents[key])
        p.put(save_of(d.address, (number,), 4, key=key))
    for number, key in enumerate(reversed(keys)):
        d.load(load_of(p.address, (number,), 4, key=key))
    assert {d.result().request_id for _ in keys} == {f"d-{key}" for key in keys}
    for number, key in enumerate(reversed(keys)):
        assert holds(d.store, (number,), contents[key], 0, 4)
    assert p.is_clean()
    assert d.is_clean()


# What is given up


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_request_that_ends_midway_fails_the_load_at_once(pair, chunks):
    (p, d), kv = pair(), some_kv(TOTAL)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    for first, end in CHUNKS[:chunks]:
        put_chunk(p, d, kv, first, end)
    p.do(lambda now: p.sender.ended(KEY, d.address))
    assert d.result().failed_blocks == D_BLOCKS
    assert (p.failures(), d.failures()) == ({("send", "aborted"): 1}, {("recv", "aborted"): 1})
    assert p.is_clean()
    assert d.is_clean()


def test_a_request_that_ends_midway_leaves_nothing_with_a_consumer_that_did_not_ask_yet(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    put_chunk(p, d, kv, *CHUNKS[0])
    d.until(lambda: d.receiver.held_bytes)
    p.do(lambda now: p.sender.ended(KEY, d.address))
    assert d.is_clean()
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.failures() == {("recv", "gone"): 1}


def test_what_is_computed_after_the_end_is_not_sent(pair):
    (p, d), kv = pair(), some_kv(TOTAL)
    put_chunk(p, d, kv, *CHUNKS[0])
    p.do(lambda now: p.sender.ended(KEY, d.address))
    put_chunk(p, d, kv, *CHUNKS[1])
    assert p.is_clean()
    assert d.is_clean()
    assert sum(isinstance(message, Put) for message in d.heard) <= len(kv)


@pytest.mark.parametrize("is_over", [False, True])
def test_the_end_of_a_request_whose_kv_is_all_sent_changes_nothing(pair, is_over):
    (p, d), kv = pair(), some_kv(TOTAL)
    put_chunk(p, d, kv, 0, TOTAL)
    if is_over:
        assert p.is_clean()
    p.do(lambda now: p.sender.ended(KEY, d.address))
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()
    assert is_all_there(d, kv)
    assert p.is_clean()
    assert p.failures() == {}


def test_the_end_of_a_request_of_which_nothing_left_says_nothing(pair):
    p, d = pair()
    p.do(lambda now: p.sender.ended(KEY, d.address))
    assert p.is_clean()
    assert p.failures() == {}
    assert d.heard == []


# Memory and dead peers


def test_the_engine_waits_while_too_much_is_under_way(pair):
    """More chunks than the buffer takes go through one after the other."""
    (p, d), kv = pair(buffer_bytes=3 * BYTES_PER_TOKEN, d_settings={"buffer_bytes": 10**9}), some_kv(TOTAL)
    seen = []
    p.do(lambda now: p.sender._outbox.queue)  # the thread runs
    queue = p.sender._outbox.queue
    p.sender._outbox.queue = lambda parcel: (queue(parcel), seen.append(p.sender._outbox.waiting_bytes))
    for first in range(0, TOTAL, 3):
        put_chunk(p, d, kv, first, first + 3)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()
    assert is_all_there(d, kv)
    assert 0 < max(seen) <= 3 * BYTES_PER_TOKEN
    assert p.is_clean()


def test_a_peer_that_never_answers_costs_one_timeout_and_is_then_left_alone(engine, silent_address):
    p = engine("kv_producer", timeout_s=0.2, fence_s=60.0, send_type="PUT")
    p.put(save_of(silent_address, P_BLOCKS, TOTAL))
    assert p.sender.wait_until_sent()
    assert p.is_clean()
    assert p.failures() == {("send", "timeout"): 1}
    ended_at = p.do(lambda now: now)
    for number in (2, 3):
        p.put(save_of(silent_address, P_BLOCKS, TOTAL, key=key_of(number)))
    assert p.sender.wait_until_sent()
    assert p.do(lambda now: now) - ended_at < 0.2
    assert p.failures() == {("send", "fenced"): 2}
    assert p.is_clean()


def test_a_dead_peer_does_not_hold_up_another(engine, pair, silent_address):
    (p, d), kv = pair(timeout_s=0.3), some_kv(TOTAL)
    p.put(save_of(silent_address, P_BLOCKS, TOTAL, key=key_of(2)))
    put_chunk(p, d, kv, 0, TOTAL)
    d.load(load_of(p.address, D_BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()
    assert p.is_clean()
    assert p.failures() == {("send", "timeout"): 1}


def test_an_engine_out_of_memory_gives_a_transfer_up(engine, silent_address):
    """One peer takes nothing and the memory is used up: the next save raises and its load need not wait."""
    p = engine("kv_producer", timeout_s=0.2, buffer_bytes=1)
    d = engine("kv_consumer", d_store())
    p.do(lambda now: setattr(p.sender._outbox, "silent", lambda now: []))
    p.sender.put(save_of(silent_address, P_BLOCKS, TOTAL), 0, is_last=False)
    d.load(load_of(p.address, D_BLOCKS, TOTAL, key=key_of(2)))
    with pytest.raises(TimeoutError, match=r"kv_buffer_size is used up"):
        p.put(save_of(d.address, P_BLOCKS, TOTAL, key=key_of(2)))
    assert d.result().failed_blocks == D_BLOCKS
    assert d.failures() == {("recv", "timeout"): 1}
