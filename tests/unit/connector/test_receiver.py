"""What the consumer takes and refuses: integrity, fit, memory, cancelled loads, peers that fell silent."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import xxhash
from tests.support.connector.kv_engines import KEY, fill, holds, key_of, load_of, save_of
from tests.support.connector.memory_store import SHAPES, MemoryStore, some_kv

from ppd_connector.messages import Ack, Put, Sent
from ppd_connector.receiver import LoadResult
from ppd_connector.route import Route

TOTAL = 6
BLOCKS = (9, 3)
BYTES_PER_TOKEN = MemoryStore().geometry.bytes_per_token
CHUNKS = ((0, 3), (3, TOTAL))


@pytest.fixture
def pair(engine):
    def start(d_settings=(), d_store=None, **changes):
        p = engine("kv_producer", **changes)
        fill(p.store, BLOCKS, some_kv(TOTAL))
        return p, engine("kv_consumer", d_store or MemoryStore(seed=2), **{**changes, **dict(d_settings)})

    return start


def put(p, d, key=KEY, chunks=((0, TOTAL),), **changes):
    for first, end in chunks:
        p.put(save_of(d.address, BLOCKS, end, first=first, total=TOTAL, key=key, **changes))


def wait_for_kv(d, tokens=TOTAL):
    entries = d.receiver._inbox._entries
    d.until(lambda: sum(entry.moved_bytes for entry in entries.values()) >= tokens * BYTES_PER_TOKEN)


# Integrity


@pytest.mark.parametrize("is_awaited", [False, True])
def test_a_bit_that_turns_over_on_the_way_is_caught_every_time(pair, is_awaited):
    p, d = pair(d_settings={"fault": "wire_bitflip"})
    before, keys = d.store.copy(), [key_of(number * 7919) for number in range(1, 61)]
    for key in keys:
        if is_awaited:
            d.load(load_of(p.address, BLOCKS, TOTAL, key=key))
        put(p, d, key)
        if not is_awaited:
            p.until(lambda: not p.left_over())
            d.load(load_of(p.address, BLOCKS, TOTAL, key=key))
        assert d.result().failed_blocks == BLOCKS
    assert p.is_clean()
    assert p.failures() == {("send", "checksum"): len(keys)}
    refused = {("recv", "checksum"): len(keys)}
    assert d.failures() == (refused if is_awaited else {**refused, ("recv", "gone"): len(keys)})
    assert d.is_clean()
    assert all(np.array_equal(*pair) for now, then in zip(d.store.cache, before, strict=True)
               for pair in zip(now, then, strict=True))  # fmt: skip
    assert not d.loaded


@pytest.mark.parametrize("where", ["producer", "consumer"])
def test_without_a_checksum_one_wrong_bit_passes(pair, where):
    p, d = pair(d_settings={"fault": "wire_bitflip", "is_checksummed": where != "consumer"},
                is_checksummed=where != "producer")  # fmt: skip
    d.load(load_of(p.address, BLOCKS, TOTAL))
    put(p, d, chunks=CHUNKS)
    assert d.result().failed_blocks == ()
    assert wrong_bits(d.store, some_kv(TOTAL)) == 1
    assert d.is_clean()


def wrong_bits(store, kv):
    return sum(
        int.from_bytes(found.tobytes()) ^ int.from_bytes(plane.tobytes()) != 0
        and (int.from_bytes(found.tobytes()) ^ int.from_bytes(plane.tobytes())).bit_count()
        for layer, planes in enumerate(kv)
        for found, plane in zip(store.tokens(layer, BLOCKS, 0, TOTAL), planes, strict=True)
    )


# What does not fit


@pytest.mark.parametrize("is_awaited", [False, True])
@pytest.mark.parametrize("what", ["model", "prompt", "total", "shape"])
def test_kv_of_something_else_is_never_taken(pair, is_awaited, what):
    stores = {"model": MemoryStore(model="another"), "shape": MemoryStore(shapes=SHAPES[:2])}
    p, d = pair(d_store=stores.get(what))
    load = load_of(p.address, BLOCKS, TOTAL + (what == "total"), prompt="other" if what == "prompt" else "prompt")
    if is_awaited:
        d.load(load)
    put(p, d)
    if not is_awaited:
        d.until(lambda: d.has_heard(Put))
        d.load(load)
    assert d.result().failed_blocks == BLOCKS
    assert d.is_clean()
    assert p.is_clean()
    assert not d.loaded
    counted = d.failures()
    assert counted.pop(("recv", "mismatch")) == 1, "once, however many layers were refused"
    assert counted in ({}, {("recv", "gone"): 1})


def header(d, **changes):
    """A `Put` of layer 1 (1 head, 6 channels of one byte) that is right but for the changes."""
    right = Put(
        key=KEY, sender="p:1", fingerprint=d.store.geometry.fingerprint, prompt="prompt", layer=1, first_token=0,
        end_token=2, from_token=0, total_tokens=TOTAL, payload_bytes=12, checksum=xxhash.xxh3_64_intdigest(bytes(12)),
    )  # fmt: skip
    return msgspec.structs.replace(right, **changes)


@pytest.mark.parametrize(
    ("changes", "payload", "refusal"),
    [
        ({}, bytes(12), None),
        ({"checksum": None}, bytes(12), None),
        ({"protocol": 2}, bytes(12), "mismatch"),
        ({"fingerprint": "0" * 16}, bytes(12), "mismatch"),
        ({"layer": 3}, bytes(12), "mismatch"),
        ({"layer": -1}, bytes(12), "mismatch"),
        ({"layer": 0}, bytes(12), "mismatch"),
        ({"first_token": 2}, bytes(12), "mismatch"),
        ({"first_token": 5, "end_token": TOTAL + 1}, bytes(12), "mismatch"),
        ({"payload_bytes": 18}, bytes(12), "mismatch"),
        ({"payload_bytes": 18}, bytes(18), "mismatch"),
        ({}, bytes(11), "mismatch"),
        ({}, b"", "mismatch"),
        ({}, None, "mismatch"),
        ({"checksum": 1}, bytes(12), "checksum"),
        ({}, bytes(11) + b"\1", "checksum"),
    ],
)
def test_every_put_is_answered(engine, changes, payload, refusal):
    p, d = engine("kv_producer"), engine("kv_consumer")
    put, view = header(d, **changes), None if payload is None else memoryview(payload)
    p.do(lambda now: p.endpoint.send(Route(d.address), put, view))
    p.until(lambda: p.heard)
    assert p.heard == [Ack(key=put.key, layer=put.layer, first_token=put.first_token, refusal=refusal)]
    assert bool(d.left_over()) is (refusal is None)


def test_a_peer_is_not_what_it_says(pair):
    """KV under the right key from an engine that the tag does not name."""
    p, d = pair()
    put(p, d)
    wait_for_kv(d)
    d.load(load_of("127.0.0.1:9", BLOCKS, TOTAL))
    assert d.result().failed_blocks == BLOCKS
    assert d.failures() == {("recv", "mismatch"): 1}


# Memory


@pytest.mark.parametrize("is_awaited", [False, True])
def test_what_does_not_fit_the_buffer_is_refused_and_given_back(pair, is_awaited):
    p, d = pair(d_settings={"buffer_bytes": (TOTAL + 1) * BYTES_PER_TOKEN})
    put(p, d)
    wait_for_kv(d)
    if is_awaited:
        d.load(load_of(p.address, BLOCKS, TOTAL, key=key_of(2)))
    put(p, d, key_of(2), CHUNKS)
    p.until(lambda: not p.left_over())
    if not is_awaited:
        d.load(load_of(p.address, BLOCKS, TOTAL, key=key_of(2)))
    assert d.result().failed_blocks == BLOCKS
    assert d.failures() == {("recv", "full"): 1}
    assert p.failures() == {("send", "full"): 1}
    assert d.receiver.held_bytes == TOTAL * BYTES_PER_TOKEN
    d.load(load_of(p.address, BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()
    assert d.is_clean()


def test_kv_that_nobody_asks_for_goes_when_the_lease_ends(pair):
    p, d = pair(d_settings={"lease_s": 0.1, "timeout_s": 0.2})
    put(p, d, chunks=CHUNKS[:1])
    d.until(lambda: d.has_heard(Put, len(SHAPES)))
    assert d.is_clean()
    assert d.failures() == {("recv", "expired"): 1}
    put(p, d, chunks=CHUNKS[1:])
    assert p.is_clean()
    assert p.failures() == {("send", "gone"): 1}


# Cancelled loads


@pytest.mark.parametrize("chunks", [0, 1])
def test_a_cancelled_load_reports_once_and_what_comes_later_is_refused(pair, chunks):
    p, d = pair()
    load = load_of(p.address, BLOCKS, TOTAL)
    d.load(load)
    put(p, d, chunks=CHUNKS[:chunks])
    wait_for_kv(d, 3 * chunks)
    d.do(lambda now: d.receiver.release(load.request_id, load.key, load.peer))
    result = d.result()
    assert (result.request_id, result.failed_blocks) == (load.request_id, ())
    put(p, d, chunks=CHUNKS[chunks:])
    assert p.is_clean()
    d.do(lambda now: d.receiver.release(load.request_id, load.key, load.peer))
    assert d.is_clean()
    assert not d.receiver.results
    assert not d.loaded
    assert d.failures() == {("recv", "aborted"): 1}
    assert p.failures() == {("send", "gone"): 1}


def test_a_request_that_is_over_before_its_load_reports_nothing(pair):
    p, d = pair()
    put(p, d, chunks=CHUNKS[:1])
    wait_for_kv(d, 3)
    d.do(lambda now: d.receiver.release(f"d-{KEY}", KEY, p.address))
    put(p, d, chunks=CHUNKS[1:])
    assert p.is_clean()
    assert d.is_clean()
    assert not d.receiver.results
    assert p.failures() == {("send", "gone"): 1}
    assert d.failures() == {("recv", "unused"): 1}


def test_the_end_of_a_request_after_its_load_changes_nothing(pair):
    p, d = pair()
    load = load_of(p.address, BLOCKS, TOTAL)
    d.load(load)
    put(p, d)
    assert d.result().failed_blocks == ()
    d.do(lambda now: d.receiver.release(load.request_id, load.key, load.peer))
    assert d.is_clean()
    assert not d.receiver.results
    assert d.failures() == {}
    assert holds(d.store, BLOCKS, some_kv(TOTAL), 0, TOTAL)


def test_a_request_that_takes_nothing_says_so_to_its_peer(pair):
    """Nothing came yet: what comes is refused, so the producer stops."""
    p, d = pair()
    d.do(lambda now: d.receiver.release("", KEY, p.address, "unused"))
    put(p, d, chunks=CHUNKS)
    assert p.is_clean()
    assert d.is_clean()
    assert p.failures() == {("send", "gone"): 1}
    assert d.failures() == {}


def test_a_key_that_is_over_is_never_loaded_again(pair):
    p, d = pair()
    put(p, d)
    d.load(load_of(p.address, BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()
    d.load(load_of(p.address, BLOCKS, TOTAL))
    assert d.result().failed_blocks == BLOCKS
    assert d.failures() == {("recv", "gone"): 1}


# Silence


def test_a_silent_peer_costs_one_timeout_and_is_heard_again(pair):
    """While the fence stands a load fails at once; KV from the peer lifts it."""
    p, d = pair(d_settings={"timeout_s": 0.2, "fence_s": 60.0})
    peer = p.address
    d.load(load_of(peer, BLOCKS, TOTAL, key=KEY))
    assert d.result().failed_blocks == BLOCKS
    d.load(load_of(peer, BLOCKS, TOTAL, key=key_of(2)))
    assert d.result().failed_blocks == BLOCKS
    assert d.failures() == {("recv", "timeout"): 1, ("recv", "fenced"): 1}
    put(p, d, key_of(3))
    wait_for_kv(d)
    d.load(load_of(peer, BLOCKS, TOTAL, key=key_of(3)))
    assert d.result().failed_blocks == ()
    d.load(load_of(peer, BLOCKS, TOTAL, key=key_of(4)))
    assert d.result().failed_blocks == BLOCKS
    assert d.failures() == {("recv", "timeout"): 1}, "it was waited for again"


def test_what_is_here_is_taken_though_its_peer_is_fenced(pair):
    p, d = pair(d_settings={"timeout_s": 0.2, "fence_s": 60.0})
    put(p, d)
    wait_for_kv(d)
    d.do(lambda now: d.receiver._fences.raise_for(p.address, now))
    d.load(load_of(p.address, BLOCKS, TOTAL))
    assert d.result().failed_blocks == ()


def test_a_load_is_waited_for_as_long_as_something_comes(pair):
    """Layer by layer in the receiver's own time, each just within the limit; then nothing more."""
    p, d = pair(d_settings={"timeout_s": 1000.0})
    d.load(load_of("p:1", BLOCKS, TOTAL))
    (job,) = d.receiver._jobs.values()
    now = job.started_at
    for first in (0, 2, 4):
        now += 999.0
        put = header(d, first_token=first, end_token=first + 2)
        d.do(lambda _, put=put, now=now: d.receiver.put(Route(p.address), put, memoryview(bytes(12)), now))
        assert d.do(lambda _, now=now: d.receiver.tick(now)) == now + 1000.0
    assert not d.receiver.results
    d.do(lambda _: d.receiver.tick(now + 1000.0))
    assert d.result().failed_blocks == BLOCKS
    assert d.is_clean()


def test_how_long_it_took_is_not_waited_for_forever(pair):
    p, d = pair(d_settings={"timeout_s": 1000.0})
    put(p, d)
    p.until(lambda: not p.left_over())
    d.do(lambda _: setattr(d.receiver, "_untimed", {}))
    d.until(lambda: d.has_heard(Sent))
    d.load(load_of(p.address, BLOCKS, TOTAL))
    d.result()
    assert d.is_clean()
    assert d.request_figures[f"d-{KEY}"].moved_bytes == TOTAL * BYTES_PER_TOKEN


# Faults on purpose, by way of the receiver


@pytest.mark.parametrize("first", [0, 1, 4])
def test_a_kv_fault_strikes_what_is_loaded_and_nothing_else(pair, first):
    """Chunks that lie before what is needed are left out with a fault as without one."""
    p, d = pair(d_settings={"fault": "scale:1"})
    put(p, d, chunks=CHUNKS)
    wait_for_kv(d)
    d.load(load_of(p.address, BLOCKS, TOTAL, first=first))
    assert d.result().failed_blocks == ()
    expected = MemoryStore(seed=2)
    fill(expected, BLOCKS, [[plane[:, first:] for plane in planes] for planes in some_kv(TOTAL)], first)
    for layer in (1, 2):  # e4m3 and float32 times 1 are what they were, but for e4m3's second NaN
        for found, wanted in zip(d.store.cache[layer], expected.cache[layer], strict=True):
            assert np.array_equal(found, wanted)


def test_a_stale_fault_puts_the_request_before_it_back(pair):
    p, d = pair(d_settings={"fault": "stale"})
    for number in (1, 2):
        kv = some_kv(TOTAL, seed=number)
        fill(p.store, BLOCKS, kv)
        put(p, d, key_of(number))
        d.load(load_of(p.address, BLOCKS, TOTAL, key=key_of(number)))
        assert d.result().failed_blocks == ()
        assert holds(d.store, BLOCKS, some_kv(TOTAL, seed=1), 0, TOTAL)


# Two requests under one key


def test_of_two_loads_under_one_key_both_end_and_the_first_gets_the_kv(pair):
    p, d = pair()
    first, second = load_of(p.address, BLOCKS, TOTAL), load_of(p.address, (1, 2), TOTAL)
    second = replace(second, request_id="x")
    d.load(first)
    d.load(second)
    assert d.result() == LoadResult(request_id="x", failed_blocks=(1, 2))
    put(p, d)
    assert d.result() == LoadResult(request_id=first.request_id)
    assert d.is_clean()


@pytest.mark.parametrize("request_id", ["x", ""])
def test_the_end_of_another_request_under_the_same_key_leaves_a_load_alone(pair, request_id):
    p, d = pair()
    d.load(load_of(p.address, BLOCKS, TOTAL))
    d.do(lambda now: d.receiver.release(request_id, KEY, p.address))
    put(p, d)
    assert d.result().failed_blocks == ()
    assert d.is_clean()
