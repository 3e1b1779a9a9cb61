"""The announcement as vLLM's P2pNccl engines put it on the wire, byte for byte, and over a real socket."""

import asyncio

import msgpack
import pytest
import zmq
import zmq.asyncio

from ppd_connector.wire import announcement
from ppd_core.fleet.fleet import Fleet
from ppd_proxy.discovery.announce import Announcement, AnnouncementListener, parse_announcement

LIMIT_S = 10.0

# 0x83: map of 3; 0xa0 + n: string of n bytes, in the order the engine writes them
GOLDEN_P = (
    b"\x83"
    b"\xa4type" b"\xa1P"
    b"\xachttp_address" b"\xaf127.0.0.1:20001"
    b"\xabzmq_address" b"\xaf127.0.0.1:21001"
)  # fmt: skip
GOLDEN_D = (
    b"\x83"
    b"\xa4type" b"\xa1D"
    b"\xachttp_address" b"\xb010.20.30.40:8200"
    b"\xabzmq_address" b"\xb110.20.30.40:22001"
)  # fmt: skip
P_HEARD = Announcement(role="prefill", http_address="127.0.0.1:20001", zmq_address="127.0.0.1:21001", is_ppd=False)
D_HEARD = Announcement(role="decode", http_address="10.20.30.40:8200", zmq_address="10.20.30.40:22001", is_ppd=False)


@pytest.fixture
async def heard():
    return asyncio.Queue()


@pytest.fixture
async def rejected():
    return asyncio.Queue()


@pytest.fixture
async def listener(heard, rejected):
    listener = AnnouncementListener("127.0.0.1", 0, heard.put_nowait, on_rejected=rejected.put_nowait)
    await listener.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(listener.run())
        yield listener
        listener.stop()


@pytest.fixture
async def dealer(listener):
    """Makes sockets set up as the engine sets up its own."""
    sockets = []
    with zmq.asyncio.Context() as context:

        def connect(identity: str) -> zmq.asyncio.Socket:
            socket = context.socket(zmq.DEALER)
            socket.setsockopt_string(zmq.IDENTITY, identity)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"tcp://127.0.0.1:{listener.port}")
            sockets.append(socket)
            return socket

        yield connect
        for socket in sockets:
            socket.close()


async def next_of(queue):
    async with asyncio.timeout(LIMIT_S):
        return await queue.get()


@pytest.mark.parametrize(("payload", "expected"), [(GOLDEN_P, P_HEARD), (GOLDEN_D, D_HEARD)], ids=["P", "D"])
def test_golden_bytes_of_a_stock_engine(payload, expected):
    assert parse_announcement(payload) == expected


def test_our_connector_makes_the_same_bytes():
    assert msgpack.dumps(announcement("P", "127.0.0.1:20001", "127.0.0.1:21001")) == GOLDEN_P


async def test_announcements_over_a_real_socket_are_heard(dealer, heard):
    await dealer("127.0.0.1:21001").send(GOLDEN_P)
    assert await next_of(heard) == P_HEARD
    await dealer("10.20.30.40:22001").send(GOLDEN_D)
    assert await next_of(heard) == D_HEARD


async def test_a_restarted_engine_that_reuses_its_identity_is_heard_again(dealer, heard):
    first = dealer("127.0.0.1:21001")
    await first.send(GOLDEN_P)
    assert await next_of(heard) == P_HEARD
    # The old connection is still open, as it is when a host vanished without closing it.
    await dealer("127.0.0.1:21001").send(GOLDEN_P)
    assert await next_of(heard) == P_HEARD


async def test_an_unknown_type_does_not_end_the_listening(dealer, heard, rejected):
    socket = dealer("127.0.0.1:21001")
    await socket.send(msgpack.dumps({"type": "X", "http_address": "h:1", "zmq_address": "h:2"}))
    assert await next_of(rejected) == "unknown_type"
    await socket.send(GOLDEN_P)
    assert await next_of(heard) == P_HEARD


async def test_an_announced_engine_takes_requests_and_is_lost_after_ten_silent_seconds(dealer, heard):
    fleet = Fleet(default_handoff="auto")
    for payload in (GOLDEN_P, GOLDEN_D):
        await dealer("engine").send(payload)
        engine = await next_of(heard)
        fleet.announce(
            role=engine.role,
            http_address=engine.http_address,
            zmq_address=engine.zmq_address,
            is_ppd=engine.is_ppd,
            now=0.0,
        )
    for known in fleet.engines():
        fleet.probed(known.id, True, 0.0)
    assert [engine.id for engine in fleet.view.prefill + fleet.view.decode] == ["127.0.0.1:20001", "10.20.30.40:8200"]
    fleet.expire(10.0)
    assert fleet.view.prefill + fleet.view.decode == ()
