import asyncio
import logging
from contextlib import asynccontextmanager
from ipaddress import ip_network

import msgpack
import pytest
import zmq
import zmq.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_core.fleet.announced import LOOPBACK, Networks, RejectedAnnouncement
from ppd_proxy.discovery.announce import AnnouncementListener, parse_announcement
from ppd_shell.settings import ConfigError

LIMIT_S = 10.0
STOCK = {"type": "P", "http_address": "10.0.0.1:8100", "zmq_address": "10.0.0.1:21001"}


def parse(**fields):
    return parse_announcement(msgpack.dumps(STOCK | fields))


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        ({}, "prefill"),
        ({"type": "D"}, "decode"),
        ({"role": "both"}, "prefill"),
        ({"type": "D", "role": "both"}, "prefill"),
        ({"type": "D", "role": "decode"}, "decode"),
    ],
)
def test_the_role_comes_from_the_type_and_both_counts_as_prefill(fields, role):
    assert parse(**fields).role == role


def test_a_patched_engine_says_that_it_takes_direct_requests():
    assert parse(ppd=True).is_ppd
    assert not parse(ppd=False).is_ppd
    assert not parse().is_ppd


def test_unknown_keys_are_ignored():
    assert parse(version=[1, {"a": None}], tp=8) == parse()


@pytest.mark.parametrize(
    ("fields", "reason", "sentence"),
    [
        ({"type": "X"}, "unknown_type", r"type is 'X'; it must be \"P\" or \"D\""),
        ({"type": None}, "bad_field", "type is None; it must be a string"),
        ({"type": b"P"}, "bad_field", "type is b'P'"),
        ({"http_address": 8100}, "bad_field", "http_address is 8100; it must be a string"),
        ({"http_address": "10.0.0.1"}, "bad_field", "http_address is '10.0.0.1'; it must be HOST:PORT"),
        ({"http_address": "http://10.0.0.1:8100"}, "bad_field", "http_address is"),
        ({"zmq_address": "10.0.0.1:0"}, "bad_field", "zmq_address is '10.0.0.1:0'"),
        ({"zmq_address": "a_b:1"}, "bad_field", "without an underscore"),
        ({"ppd": 1}, "bad_field", "ppd is 1; it must be true or false"),
        ({"role": "decode"}, "bad_field", "role is 'decode'; with type 'P' it must be 'prefill' or \"both\""),
        ({"role": ["both"]}, "bad_field", "role is"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_right(fields, reason, sentence):
    with pytest.raises(RejectedAnnouncement, match=sentence) as caught:
        parse(**fields)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", list(STOCK))
def test_a_missing_field_is_named(name):
    fields = {key: value for key, value in STOCK.items() if key != name}
    with pytest.raises(RejectedAnnouncement, match=f"{name} is missing") as caught:
        parse_announcement(msgpack.dumps(fields))
    assert caught.value.reason == "missing_field"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_msgpack"),
        (b"\xc1", "not_msgpack"),
        (b"\xa1\xff", "not_msgpack"),
        (b"\x91" * 5000, "not_msgpack"),
        (msgpack.dumps(STOCK)[:-1], "not_msgpack"),
        (msgpack.dumps(STOCK) + b"\x00", "not_msgpack"),
        (b"\xc0", "not_a_map"),
        (b"\x93\x01\x02\x03", "not_a_map"),
        (b"\x80", "missing_field"),
    ],
)
def test_garbage_is_a_value_error_with_a_reason(payload, reason):
    with pytest.raises(RejectedAnnouncement) as caught:
        parse_announcement(payload)
    assert caught.value.reason == reason


@settings(deadline=None)  # a busy machine is not a failure
@given(st.binary(max_size=64))
def test_no_payload_raises_anything_else(payload):
    with pytest.raises(RejectedAnnouncement):
        parse_announcement(payload)


# The socket


class Station:
    """A listener with what came of it, and engines' sockets to talk to it."""

    def __init__(self, context, allowed=None):
        self.heard, self.rejected = asyncio.Queue(), asyncio.Queue()
        self.listener = AnnouncementListener(
            "127.0.0.1", 0, self.heard.put_nowait, on_rejected=self.rejected.put_nowait, allowed=allowed
        )
        self._context = context
        self._engines = []

    def engine(self, identity=b"engine"):
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, identity)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"tcp://127.0.0.1:{self.listener.port}")
        self._engines.append(socket)
        return socket

    def close(self):
        for socket in self._engines:
            socket.close()


@asynccontextmanager
async def listening(allowed=None):
    with zmq.asyncio.Context() as context:
        station = Station(context, allowed)
        await station.listener.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(station.listener.run())
            yield station
            station.listener.stop()
        station.close()


@pytest.fixture
async def station():
    async with listening() as station:
        yield station


async def next_of(queue):
    async with asyncio.timeout(LIMIT_S):
        return await queue.get()


async def test_garbage_of_every_kind_is_counted_and_listening_goes_on(station):
    socket = station.engine()
    await socket.send(b"")
    await socket.send(b"\xc0")
    await socket.send(msgpack.dumps({"type": "P"}))
    await socket.send_multipart([b"", msgpack.dumps(STOCK)])  # what a REQ socket would send
    await socket.send(msgpack.dumps(STOCK))
    reasons = [await next_of(station.rejected) for _ in range(4)]
    assert reasons == ["not_msgpack", "not_a_map", "missing_field", "bad_frames"]
    assert (await next_of(station.heard)).http_address == "10.0.0.1:8100"


async def test_a_huge_message_costs_its_sender_the_connection_and_nobody_else(station):
    await station.engine(b"huge").send(b"x" * 1_000_000)
    await station.engine(b"sane").send(msgpack.dumps(STOCK))
    assert (await next_of(station.heard)).role == "prefill"
    assert station.rejected.empty()


async def test_a_wrong_sender_is_logged_once_however_often_it_repeats_itself(station, caplog):
    caplog.set_level(logging.WARNING)
    for identity in (b"first", b"second"):
        socket = station.engine(identity)
        for _ in range(3):
            await socket.send(msgpack.dumps(STOCK | {"type": "X"}))
            assert await next_of(station.rejected) == "unknown_type"
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("ppd_proxy")]
    assert len(lines) == 2
    assert "sender=b'first' reason=unknown_type" in lines[0]


LOCAL = STOCK | {"http_address": "127.0.0.1:8100", "zmq_address": "127.0.0.1:21001"}


async def test_only_allowed_networks_may_announce_and_be_announced(caplog):
    caplog.set_level(logging.WARNING)
    async with listening(Networks(LOOPBACK)) as station:
        socket = station.engine()
        for fields, reason in (
            ({"http_address": "10.0.0.1:8100"}, "foreign_address"), ({"zmq_address": "10.0.0.1:1"}, "foreign_address"),
            ({"http_address": "engine.example:8100"}, "foreign_address"), ({"type": "X"}, "unknown_type"),
        ):  # fmt: skip
            await socket.send(msgpack.dumps(LOCAL | fields))
            assert await next_of(station.rejected) == reason
        await socket.send(msgpack.dumps(LOCAL))
        assert (await next_of(station.heard)).http_address == "127.0.0.1:8100"
    assert "--discovery-allow" in caplog.text


async def test_a_sender_in_another_network_is_not_even_read(caplog):
    caplog.set_level(logging.WARNING)
    async with listening(Networks([ip_network("10.0.0.0/8")])) as station:
        for payload in (msgpack.dumps(STOCK), b"\xc1", msgpack.dumps(LOCAL)):
            await station.engine().send(payload)
            assert await next_of(station.rejected) == "foreign_sender"
        assert station.heard.empty()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("ppd_proxy")]
    assert len(lines) == 1
    assert "127.0.0.1, which is not in 10.0.0.0/8" in lines[0]


async def test_what_the_receiver_objects_to_is_rejected_too():
    async with listening() as station:
        station.listener._on_announcement = _object
        await station.engine().send(msgpack.dumps(STOCK))
        assert await next_of(station.rejected) == "too_many_engines"


def _object(announcement):
    raise RejectedAnnouncement("no", "too_many_engines")


async def test_changing_senders_cannot_fill_the_log(station, caplog):
    caplog.set_level(logging.WARNING)
    for number in range(80):
        socket = station.engine(b"sender %d" % number)
        await socket.send(b"\xc0")
        await next_of(station.rejected)
        socket.close()
    assert len([record for record in caplog.records if record.name.startswith("ppd_proxy")]) == 64


async def test_run_ends_when_stopped_and_the_port_is_free_again():
    listener = AnnouncementListener("127.0.0.1", 0, print, on_rejected=print)
    await listener.start()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(listener.run())
        asyncio.get_running_loop().call_soon(listener.stop)
    assert not running.cancelled()
    listener.stop()
    again = AnnouncementListener("127.0.0.1", listener.port, print, on_rejected=print)
    await again.start()
    again.stop()


async def test_cancelling_run_is_a_cancellation(station):
    listener = AnnouncementListener("127.0.0.1", 0, print, on_rejected=print)
    await listener.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await listener.run()
    listener.stop()


async def test_a_taken_port_is_a_configuration_mistake_that_names_it(station):
    port = station.listener.port
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"):
        await AnnouncementListener("127.0.0.1", port, print, on_rejected=print).start()


async def test_ipv6_hosts_are_bound_with_or_without_brackets():
    for host in ("::1", "[::1]"):
        listener = AnnouncementListener(host, 0, print, on_rejected=print)
        try:
            await listener.start()
        except ConfigError as error:
            if "No such device" in str(error) or "Cannot assign" in str(error):
                pytest.skip("no IPv6 on this machine")
            raise
        assert listener.port > 0
        listener.stop()
