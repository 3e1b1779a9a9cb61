"""A patched engine answers strangers, restarted peers and garbage, and announces itself (stubs: `test_patches.py`)."""

from __future__ import annotations

import time

import msgpack
import pytest
import zmq
from tests.wheels.cases import KEY, as_decode, every_release, fetching, put, received, tag
from tests.wheels.side import LONG_S
from tests.wheels.stubs import MEMORY_LIMIT, tensor

pytestmark = pytest.mark.wheels


@every_release
def test_the_listener_survives_garbage(version, sides, peers):
    decode = sides(version, producer=False)
    peer = peers(decode)
    for garbage in (
        b"", b"\xc1", b"not msgpack", [1, 2], 7, None, {}, {"cmd": "NEW"}, {"cmd": "NEW", "unique_id": b"short"},
        {"cmd": "PUT"}, {"cmd": "GET"}, {"cmd": "GET", "tensor_id": "a#0"}, {"cmd": "STOP"}, {"cmd": ["PUT"]},
        {"cmd": "PUT", "tensor_id": 7}, {"cmd": "PUT", "tensor_id": ["a"]},
    ):  # fmt: skip
        peer.send(garbage)
    peer.socket.send_multipart([b"three", b"frames"])
    peer.join()
    answers = [peer.ask(put(f"{KEY}#0", [MEMORY_LIMIT, 2]))]
    while answers[-1] == b"2":  # the strange PUTs were answered as well, first
        answers.append(peer.socket.recv())
    assert answers[-1] == b"1"
    assert decode.engine._listener_thread.is_alive()


@every_release
def test_an_unknown_peer_is_told_to_connect_and_then_served(version, sides, peers):
    prefill, decode = (sides(version, producer=producer) for producer in (True, False))
    assert peers(decode).ask(put(f"{KEY}#0")) == b"2"
    assert peers(decode, identity=b"\xff\xfe").ask(put(f"{KEY}#0")) == b"2"
    assert not decode.engine.recv_store
    assert prefill.send(f"{KEY}#0", tensor([[1.0], [2.0]]), decode.address)
    assert received(decode, f"{KEY}#0")


@every_release
@pytest.mark.parametrize("wrong", [{"dtype": "nonsense"}, {"dtype": "Tensor"}, {"shape": "wide"}, {"shape": [-1]}])
def test_a_tensor_that_cannot_be_made_is_refused(version, wrong, sides, peers):
    decode = sides(version, producer=False)
    peer = peers(decode)
    peer.join()
    assert peer.ask(put(f"{KEY}#0") | wrong) == b"1"
    assert received(decode, f"{KEY}#0")
    assert decode.engine.recv_tensor(f"{KEY}#0") is None


@every_release
def test_an_nccl_error_after_the_answer_is_not_answered_again(version, sides, peers):
    decode = sides(version, producer=False)
    peer = peers(decode)
    peer.join()
    comm = (b"u" * 128, 1)
    decode.engine.nccl.channels[comm].put(b"too short")
    assert peer.ask(put(f"{KEY}#0")) == b"0"
    assert received(decode, f"{KEY}#0")
    assert decode.engine.recv_store[f"{KEY}#0"] is None
    decode.engine.nccl.channels[comm].put(tensor([1.0, 2.0]).astype("float32").tobytes())
    assert peer.ask(put(f"{KEY}#1")) == b"0"
    assert received(decode, f"{KEY}#1")
    assert decode.engine.recv_store[f"{KEY}#1"].tolist() == [1.0, 2.0]


@fetching
def test_an_unknown_peer_that_fetches_is_refused(version, sides, peers):
    prefill = sides(version, producer=True, send_type="GET")
    prefill.engine.send_store[f"{KEY}#0"] = tensor([1.0])
    peer = peers(prefill)
    assert msgpack.loads(peer.ask({"cmd": "GET", "tensor_id": f"{KEY}#0"})) == {"ret": 2}
    peer.join()
    assert msgpack.loads(peer.ask({"cmd": "GET", "tensor_id": "none#0"})) == {"ret": 1}


@fetching
def test_a_restarted_prefill_engine_is_connected_again(version, sides):
    prefill, decode = (sides(version, producer=producer, send_type="GET") for producer in (True, False))
    prefill.engine.send_store.update({f"{KEY}#0": tensor([1.0]), f"{KEY}#1": tensor([2.0])})
    assert decode.engine.recv_tensor(f"{KEY}#0", prefill.address).tolist() == [1.0]
    prefill.engine.comms.clear()  # what a restart forgets
    assert decode.engine.recv_tensor(f"{KEY}#1", prefill.address) is None
    assert decode.engine.recv_tensor(f"{KEY}#1", prefill.address).tolist() == [2.0]


@every_release
def test_a_restarted_decode_engine_is_connected_again(version, sides):
    prefill, decode = (sides(version, producer=producer) for producer in (True, False))
    sent = tensor([[1.0], [2.0]])
    assert prefill.send("a#0", sent, decode.address)
    decode.engine.comms.clear()  # what a restart forgets
    assert prefill.send("b#0", sent, decode.address)
    assert received(decode, "b#0")
    assert decode.engine.recv_store["b#0"].tolist() == sent.tolist()


@every_release
def test_a_tensor_for_a_finished_request_is_refused_and_not_waited_for(version, sides):
    prefill, decode = (sides(version, producer=producer) for producer in (True, False))
    decode.worker.get_finished({as_decode(tag())})
    assert not prefill.send(f"{KEY}#0", tensor([[1.0], [2.0]]), decode.address)
    assert not decode.engine.recv_store
    start = time.monotonic()
    assert decode.engine.recv_tensor(f"{as_decode(tag())}#0") is None
    assert time.monotonic() - start < LONG_S / 2


@every_release
@pytest.mark.parametrize("producer", [True, False])
def test_the_announcement_says_that_direct_requests_are_taken(version, producer, sides, context):
    proxy = context.socket(zmq.ROUTER)
    proxy.setsockopt(zmq.RCVTIMEO, int(LONG_S * 1000))
    port = proxy.bind_to_random_port("tcp://127.0.0.1")
    side = sides(version, producer=producer, proxy_ip="127.0.0.1", proxy_port=str(port), http_port="8000")
    announced = msgpack.loads(proxy.recv_multipart()[1])
    assert announced == {
        "type": "P" if producer else "D", "http_address": "127.0.0.1:8000", "zmq_address": side.address, "ppd": True,
    }  # fmt: skip
