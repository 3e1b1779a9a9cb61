"""Whatever arrives, the thread goes on; messages come out as they went in."""

import logging
import queue

import msgspec
import pytest
import zmq
from tests.support.connector.kv_engines import KEY, LIMIT_S, load_of

from ppd_connector.courier import Courier
from ppd_connector.endpoint import Endpoint
from ppd_connector.messages import Abort, Ack, Done, Get, Meet, Parted, Put, Ready, Sent, decode, encode
from ppd_connector.route import Route

ABORT = Abort(key=KEY, refusal="aborted")
PUT = Put(
    key=KEY, sender="p", fingerprint="f", prompt="x", layer=1, first_token=0, end_token=4, from_token=0,
    total_tokens=4, payload_bytes=3, checksum=2**64 - 1,
)  # fmt: skip
GET = Get(key=KEY, sender="d", fingerprint="f", prompt="x", first_token=0, end_token=4)
MESSAGES = (
    PUT,
    Ack(key=KEY, layer=1, first_token=0),
    Ack(key=KEY, layer=1, first_token=0, refusal="full"),
    Ready(key=KEY, layer=1, first_token=0, channel=2**61, number=3),
    Meet(sender="p", channel=2**61, unique_id=b"\0\xff"),
    Parted(channel=2**61, refusal="peer"),
    Sent(key=KEY, seconds=0.25),
    GET,
    ABORT,
    Done(key=KEY),
)


class Ear:
    """Puts down what is heard; a message named in `fatal` is answered with that exception."""

    def __init__(self):
        self.heard = queue.Queue()
        self.fatal = {}
        self.ticks = queue.Queue()

    def received(self, route, message, payload, now):
        self.heard.put((route, message, None if payload is None else bytes(payload)))
        if type(message) in self.fatal:
            raise self.fatal[type(message)]

    def tick(self, now):
        self.ticks.put(now)
        if "tick" in self.fatal:
            raise self.fatal["tick"]
        return None


@pytest.fixture
def listener():
    """An endpoint, what it hears and a stranger's socket that talks to it."""
    ear = Ear()
    endpoint = Endpoint("127.0.0.1", 0, lambda _: ear)
    endpoint.start()
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.RCVTIMEO, int(LIMIT_S * 1000))
        stranger.connect(f"tcp://127.0.0.1:{endpoint.port}")
        yield endpoint, ear, stranger
    endpoint.stop()
    endpoint.stop()
    assert not endpoint._thread.is_alive()


def next_of(ear):
    return ear.heard.get(timeout=LIMIT_S)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_a_message_comes_out_as_it_went_in(message):
    assert decode(encode(message)) == message


@pytest.mark.parametrize("frame", [
    b"", b"\xc1", b"GET / HTTP/1.1\r\n", b"\x90", msgspec.msgpack.encode(["nonsense", 1]),
    msgspec.msgpack.encode({"tag": "abort"}), msgspec.msgpack.encode(["abort", 7, "x"]),
    encode(PUT)[:-3], encode(PUT) + b"\0", b"\x91" * 100_000,
])  # fmt: skip
def test_what_is_no_message_is_a_value_error(frame):
    with pytest.raises(ValueError, match="not a message of a KV connector"):
        decode(frame)


@pytest.mark.parametrize("frames", [
    [b""], [b"\xff\x00garbage"], [b"", encode(ABORT)], [encode(ABORT), b"a", b"b"], [b"\x91" * 10_000],
    [encode(ABORT)[:-1]],
])  # fmt: skip
def test_garbage_does_not_end_the_thread(listener, frames, caplog):
    _, ear, stranger = listener
    for _ in range(3):
        stranger.send_multipart(frames)
    stranger.send(encode(ABORT))
    assert next_of(ear)[1] == ABORT
    assert ear.heard.empty()
    assert len([record for record in caplog.records if "not understood" in record.getMessage()]) == 1, "once a minute"


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("no"), KeyError("no")])
def test_a_handler_that_fails_does_not_end_the_thread(listener, error, caplog):
    _, ear, stranger = listener
    ear.fatal = {Done: error, "tick": error}
    stranger.send(encode(Done(key=KEY)))
    stranger.send(encode(ABORT))
    assert [next_of(ear)[1] for _ in range(2)] == [Done(key=KEY), ABORT]
    for _ in range(3):
        stranger.send(encode(ABORT))
        next_of(ear)
        ear.ticks.get(timeout=LIMIT_S)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_payload_arrives_and_the_answer_goes_back_the_same_way(listener):
    endpoint, ear, stranger = listener
    stranger.send_multipart([encode(PUT), b"abc"])
    route, message, payload = next_of(ear)
    assert (message, payload) == (PUT, b"abc")
    assert not route.address
    endpoint.call(lambda now: endpoint.send(route, ABORT))
    assert decode(stranger.recv()) == ABORT
    endpoint.call(lambda now: endpoint.send(route, PUT, memoryview(b"xyz")))
    assert stranger.recv_multipart() == [encode(PUT), b"xyz"]


def test_a_peer_that_left_or_never_was_ends_nothing(listener, caplog):
    endpoint, ear, stranger = listener
    endpoint.call(lambda now: endpoint.send(Route(identity=b"nobody"), ABORT))
    endpoint.call(lambda now: endpoint.send(Route("127.0.0.1:1"), ABORT))
    endpoint.call(lambda now: endpoint.send(Route("no address"), ABORT))
    endpoint.call(lambda now: endpoint.hang_up("127.0.0.1:1"))
    endpoint.call(lambda now: endpoint.hang_up("127.0.0.1:1"))
    endpoint.call(lambda now: 1 / 0)
    stranger.send(encode(ABORT))
    assert next_of(ear)[1] == ABORT
    assert "cannot send to a peer that left" in caplog.text


def test_work_is_done_in_order(listener):
    endpoint, _, _ = listener
    done = queue.Queue()
    for number in range(100):
        endpoint.call(lambda now, number=number: done.put(number))
    assert [done.get(timeout=LIMIT_S) for _ in range(100)] == list(range(100))


def test_a_taken_address_is_told(listener):
    endpoint, _, _ = listener
    late = Endpoint("127.0.0.1", endpoint.port, lambda _: Ear())
    with pytest.raises(zmq.ZMQError, match="in use"):
        late.start()
    late.stop()
    late.stop()


def test_an_engine_goes_on_after_messages_that_are_not_for_it(engine):
    """Each role hears every kind of message, some of which only the other role takes; then a load still works."""
    p, d = engine("kv_producer"), engine("kv_consumer")
    for speaker, listener in ((p, d), (d, p)):
        for message in MESSAGES:
            speaker.do(lambda now, s=speaker, to=listener, m=message: s.endpoint.send(Route(to.address), m))
        listener.until(lambda listener=listener: len(listener.heard) >= len(MESSAGES))
    assert p.is_clean()
    assert d.is_clean()
    d.load(load_of(p.address, (1,), 2))
    assert d.result().failed_blocks == (1,), "the key was said to be over"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_an_engine_without_a_part_in_it_says_so(message):
    with pytest.raises(ValueError, match=f"{type(message).__name__} from a peer: this engine has no part in it"):
        Courier(None, None).received(Route(identity=b"x"), message, None, 0.0)
