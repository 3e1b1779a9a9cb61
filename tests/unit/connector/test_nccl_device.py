"""Payloads over NCCL, with a device that is none: real endpoints, senders and receivers over loopback TCP."""

from __future__ import annotations

import gc
import threading  # noqa: TID251 - the engine's threads, and those of the connector
import time
import weakref
from types import SimpleNamespace

import msgspec
import pytest
from tests.support.connector.loopback_device import Fabric, LoopbackDevice, LoopbackPayload, LoopbackStore
from tests.support.connector.memory_store import some_kv
from tests.support.connector.nccl_engine import FROM, LAYERS, LIMIT_S, TO, TOKENS, NcclEngine, key_of, save_of

from ppd_connector.channel import Channel
from ppd_connector.messages import Meet, Parted, Put, Ready
from ppd_connector.route import Route
from ppd_connector.settings import Settings, read_settings
from ppd_connector.transport import open_nccl


@pytest.fixture
def fabric():
    return Fabric()


@pytest.fixture
def start(fabric):
    """Starts engines; when the test is over none of their threads is in the way of the next."""
    engines = []

    def begin(**settings):
        engines.append(NcclEngine(fabric, seed=len(engines), **settings))
        return engines[-1]

    yield begin
    fabric.is_stalled = fabric.is_failing = fabric.is_deaf = False
    fabric.is_joining = True
    for engine in engines:
        engine.stop()


def _moves(producer, consumer, number):
    kv = some_kv(TOKENS, seed=number)
    producer.send(consumer, number, kv)
    failed = consumer.load(producer, number)
    assert failed or consumer.holds(kv)
    return not failed


def test_kv_goes_over_one_communicator(start, fabric):
    producer, consumer = start(), start()
    assert _moves(producer, consumer, 1)
    assert _moves(producer, consumer, 2)
    assert fabric.moved == 2 * LAYERS
    assert (len(fabric.pairs), fabric.aborts, consumer.count(Meet)) == (1, 0, 1)
    assert all(payload is None for message, payload in consumer.heard if isinstance(message, Put))
    assert producer.store.host_copies == consumer.store.host_copies == 0
    producer.until(lambda: not producer.sender._outbox.sendings, "the last acknowledgement")
    producer.settle()
    assert consumer.receiver.held_bytes == producer.sender._outbox.waiting_bytes == 0
    moved = producer.figures.take()["moved"]
    assert moved[0][3] == 2 * producer.store.geometry.bytes_per_token * TOKENS


def test_two_engines_send_to_each_other_at_once(start, fabric):
    one, other = start(), start()
    kv = {number: some_kv(TOKENS, seed=number) for number in range(40)}

    def work(engine, peer, numbers):
        for number in numbers:
            engine.send(peer, number, kv[number])

    threads = [
        threading.Thread(target=work, args=(one, other, range(0, 40, 2))),
        threading.Thread(target=work, args=(other, one, range(1, 40, 2))),
    ]
    for thread in threads:
        thread.start()
    for number in range(40):
        engine, peer = (other, one) if number % 2 == 0 else (one, other)
        assert not engine.load(peer, number)
        assert engine.holds(kv[number])
    for thread in threads:
        thread.join()
    assert len(fabric.pairs) == 2


def test_kv_is_fetched(start, fabric):
    producer, consumer = start(send_type="GET"), start(send_type="GET")
    kv = some_kv(TOKENS)
    for layer, planes in enumerate(kv):
        producer.store.fill(layer, FROM, 0, planes)
    producer.endpoint.call(lambda now: producer.sender.offer(save_of(consumer.address, 1), now))
    producer.endpoint.call(lambda now: producer.sender.hold(["p1"], now))
    assert not consumer.load(producer, 1)
    assert consumer.holds(kv)
    assert fabric.moved == LAYERS
    producer.until(lambda: producer.sender.finished, "the end of the offer")


def test_fetched_kv_without_room_for_a_copy_fails_the_load(start):
    producer, consumer = start(send_type="GET"), start(send_type="GET")
    producer.store.has_room = False
    producer.endpoint.call(lambda now: producer.sender.offer(save_of(consumer.address, 1), now))
    producer.endpoint.call(lambda now: producer.sender.hold(["p1"], now))
    assert consumer.load(producer, 1) == TO
    assert consumer.reasons("recv") == {"full": 1}


def test_pushed_kv_without_room_for_a_copy_fails_the_load(start):
    producer, consumer = start(), start()
    producer.store.has_room = False
    with pytest.raises(MemoryError):
        producer.send(consumer, 1, some_kv(TOKENS))
    assert consumer.load(producer, 1) == TO
    producer.store.has_room = True
    assert _moves(producer, consumer, 2)
    assert producer.sender._submitted_bytes == producer.store.geometry.bytes_per_token * TOKENS


@pytest.mark.parametrize("is_deaf", [False, True], ids=["abort", "no abort"])
def test_transfer_that_stalls_fails_and_is_never_taken_for_the_next(start, fabric, is_deaf):
    producer, consumer = start(timeout_s=0.2), start(timeout_s=0.2)
    assert _moves(producer, consumer, 1)
    fabric.is_stalled, fabric.is_deaf = True, is_deaf
    assert not _moves(producer, consumer, 2)
    assert set(consumer.reasons("recv")) <= {"timeout", "peer"}
    producer.until(lambda: set(producer.reasons("send")) & {"timeout", "peer"}, "the producer's failure")
    producer.until(lambda: fabric.aborts == 2, "both ends' abort")
    fabric.is_stalled = False
    for number in range(3, 7):
        assert _moves(producer, consumer, number), (producer.reasons("send"), consumer.reasons("recv"))
    assert len(fabric.pairs) == 2


def test_communicator_that_does_not_come_about_fails_the_load(start, fabric):
    producer, consumer = start(timeout_s=0.2), start(timeout_s=0.2)
    fabric.is_joining = False
    assert not _moves(producer, consumer, 1)
    producer.until(lambda: producer.reasons("send"), "the producer's failure")
    fabric.is_joining = True
    producer.until(lambda: fabric.aborts == 2, "the end of what came too late")
    producer.until(lambda: _moves(producer, consumer, int(time.monotonic() * 1e6)), "a transfer that works again")


def test_error_of_the_library_fails_the_load_at_once(start, fabric, caplog):
    producer, consumer = start(timeout_s=60.0, fence_s=60.0), start(timeout_s=60.0)
    assert _moves(producer, consumer, 1)
    fabric.is_failing = True
    assert not _moves(producer, consumer, 2)
    assert consumer.reasons("recv") == {"peer": 1}
    producer.until(lambda: producer.reasons("send"), "the producer's failure")
    assert producer.reasons("send") == {"peer": 1}
    assert "unhandled system error" in caplog.text
    fabric.is_failing = False
    producer.send(consumer, 3, some_kv(TOKENS))
    producer.until(lambda: producer.reasons("send").get("fenced"), "the fence")


@pytest.mark.parametrize("lost_count", [1, LAYERS])
def test_lost_message_ends_the_communicator_before_anything_is_mistaken(start, fabric, lost_count):
    """The consumer waits for payloads that are not sent; the next ones have the same sizes and would fit."""
    producer, consumer = start(), start()
    assert _moves(producer, consumer, 1)
    lost = []

    def loses(message):
        if isinstance(message, Ready) and len(lost) < lost_count:
            lost.append(message)
            return True
        return False

    producer.loses = loses
    kv = {number: some_kv(TOKENS, seed=number) for number in (2, 3)}
    producer.send(consumer, 2, kv[2])
    producer.until(lambda: len(lost) == lost_count, "the loss")
    producer.send(consumer, 3, kv[3])
    for number in (2, 3):
        assert consumer.load(producer, number) or consumer.holds(kv[number])
    producer.until(lambda: producer.reasons("send"), "the producer's failure")
    assert set(producer.reasons("send")) == {"peer"}
    assert _moves(producer, consumer, 4)
    assert len(fabric.pairs) == 2


def test_payload_announced_for_another_communicator_is_refused(start):
    producer, consumer = start(), start()
    assert _moves(producer, consumer, 1)
    put = next(message for message, _ in consumer.heard if isinstance(message, Put))
    stale = msgspec.structs.replace(put, key=key_of(2), channel=77)
    consumer.endpoint.call(lambda now: consumer.receiver.put(Route(producer.address), stale, None, now))
    consumer.endpoint.call(lambda now: consumer.receiver.release("r", stale.key, producer.address))
    consumer.settle()
    assert consumer.reasons("recv") == {"peer": 1}
    assert _moves(producer, consumer, 3)


def test_restarted_consumer_costs_one_transfer_and_no_fence(start, fabric):
    producer, consumer = start(fence_s=60.0), start()
    assert _moves(producer, consumer, 1)
    consumer.stop()
    again = start(port=consumer.endpoint.port)
    assert not _moves(producer, again, 2)
    assert again.reasons("recv") == {"peer": 1}
    producer.until(lambda: producer.reasons("send"), "the producer's failure")
    assert _moves(producer, again, 3)


def test_restarted_producer_is_met_anew(start, fabric):
    producer, consumer = start(), start()
    assert _moves(producer, consumer, 1)
    producer.stop()
    again = start(port=producer.endpoint.port)
    assert _moves(again, consumer, 2)
    assert consumer.count(Meet) == 2
    consumer.until(lambda: fabric.aborts == 1, "the abort of the consumer's old end")


def test_full_buffer_and_full_device_refuse(start, fabric):
    producer, small, poor = start(), start(buffer_bytes=100), start()
    poor.device.free_bytes = 100
    for number, consumer in ((1, small), (2, poor)):
        assert not _moves(producer, consumer, number)
        assert consumer.reasons("recv") == {"full": 1}
        assert consumer.receiver.held_bytes == 0


def test_engine_on_tcp_refuses_what_would_come_over_nccl(start):
    producer, consumer = start(), start(is_nccl=False, transport="tcp")
    assert not _moves(producer, consumer, 1)
    assert consumer.reasons("recv") == {"mismatch": 1}


def test_engine_on_nccl_takes_what_comes_over_tcp(start, fabric):
    producer, consumer = start(is_nccl=False, transport="tcp"), start()
    assert _moves(producer, consumer, 1)
    assert fabric.moved == 0


def test_checksum_is_made_of_a_copy_and_sees_a_flipped_bit(start):
    producer = start(is_checksummed=True)
    sound, damaged = start(is_checksummed=True), start(is_checksummed=True, fault="wire_bitflip")
    assert _moves(producer, sound, 1)
    assert producer.store.host_copies == sound.store.host_copies == LAYERS
    assert not _moves(producer, damaged, 2)
    assert damaged.reasons("recv") == {"checksum": 1}


@pytest.mark.parametrize("fault", ["zero_tail", "wire_bitflip"])
def test_faults_strike_without_a_checksum(start, fault):
    producer, consumer = start(), start(fault=fault)
    kv = some_kv(TOKENS)
    producer.send(consumer, 1, kv)
    assert not consumer.load(producer, 1)
    assert not consumer.holds(kv)


def test_message_about_an_ended_communicator_does_nothing(start):
    producer, consumer = start(), start()
    assert _moves(producer, consumer, 1)
    stale = Ready(key=key_of(1), layer=0, first_token=0, channel=77, number=0)
    producer.endpoint.call(lambda now: producer.sender.ready(Route(consumer.address), stale))
    for engine in (producer, consumer):
        engine.endpoint.call(lambda now, each=engine: each.sender.parted(Parted(channel=77, refusal="peer"), now))
        engine.endpoint.call(lambda now, each=engine: each.receiver.parted(Parted(channel=77, refusal="peer"), now))
    assert _moves(producer, consumer, 2)
    assert producer.reasons("send") == consumer.reasons("recv") == {}


def test_memory_is_kept_while_the_device_may_touch_it(fabric):
    """A receive that was given up, but not aborted, is filled late: its memory must not be anybody else's by then."""
    device, broken = LoopbackDevice(fabric), []
    fabric.is_deaf = fabric.is_stalled = True
    name = device.unique_id()
    ends = [Channel(1, device, is_sender=one, timeout_s=0.1, on_broken=broken.append) for one in (True, False)]
    payloads = [LoopbackPayload(b"new"), LoopbackPayload(b"old")]
    known, others = [weakref.ref(payload) for payload in payloads], set(threading.enumerate())
    for end, payload in zip(ends, payloads, strict=True):
        end.start(name)
        end.push(payload, lambda: broken.append("done"))
    del payloads, payload
    working = set(threading.enumerate()) - others
    with fabric.changed:
        assert fabric.changed.wait_for(lambda: fabric.aborts == 2, LIMIT_S)
    assert broken == ["timeout", "timeout"]
    fabric.pairs.clear()
    del ends, end
    gc.collect()
    assert all(ref() is not None for ref in known)
    fabric.is_stalled = False
    for thread in working:
        thread.join(LIMIT_S)
    gc.collect()
    assert all(ref() is None for ref in known)
    assert broken == ["timeout", "timeout"]


def test_cpu_engine_refuses_nccl_at_start():
    store = LoopbackStore()
    store.device = SimpleNamespace(type="cpu")
    with pytest.raises(ValueError, match="KV cache is on cpu: NCCL moves GPU memory only"):
        open_nccl(store, Settings(role="kv_both", kv_port=1, transport="nccl"))
    assert open_nccl(store, Settings(role="kv_both", kv_port=1)) is None


@pytest.mark.parametrize(
    ("extra", "is_checksummed"),
    [({}, True), ({"transport": "nccl"}, False), ({"transport": "nccl", "checksum": True}, True),
     ({"checksum": False}, False)],
)  # fmt: skip
def test_checksum_is_off_over_nccl_unless_asked_for(extra, is_checksummed):
    transfer = SimpleNamespace(kv_role="kv_both", kv_port=1, kv_connector_extra_config=extra)
    assert read_settings(transfer).is_checksummed is is_checksummed
