"""A client that reads slowly gets its stream whole and in order."""

import asyncio

import msgspec
import pytest
from tests.support.builders import direct_plan
from tests.support.parts import Parts, make_call
from tests.support.playbook import planned
from tests.support.scripted import BODY, HEAD, LIMIT_S, SSE_END, SSE_HEAD, Line, chunk, scripted, until

from ppd_proxy.request.driver import Driver
from ppd_proxy.request.in_flight import InFlight
from ppd_proxy.request.signals import Patience
from ppd_proxy.upstream.leg_request import LegRequest
from ppd_proxy.upstream.pool import Pool
from ppd_shell.tasks import Tasks
from ppd_wire.dialects.sse import SseRelay
from ppd_wire.requests.asked import NOTHING

DONE = b"data: [DONE]\n\n"
PATIENCE = Patience(prefill_s=60.0, first_token_s=60.0, idle_s=60.0, release_s=10.0)


def piece(number):
    return b'data: {"choices":[{"index":0,"text":"%d"}]}\n\n' % number


class Request:
    """The request's own side: one direct plan, one leg, nothing to count."""

    def __init__(self, origin):
        self._origin = origin

    def plan(self, ongoing, command):
        return planned(direct_plan())

    def leg(self, ongoing, command):
        relay = SseRelay(hidden_id=b"h", public_id=b"h", drop_usage=False, asked=NOTHING)
        return LegRequest(origin=self._origin, head=HEAD, body=BODY, relay=relay, dialect="chat", is_retriable=True)

    def judge(self, ongoing, leg, event):
        return event

    def own_headers(self, ongoing):
        return []

    def response_headers(self, ongoing, leg):
        return []

    def complete(self, ongoing, leg):
        pass

    def release(self, ongoing):
        pass


class SlowClient:
    """As an ASGI server behaves: a write waits while the client's socket is full, and goes out when it runs again."""

    def __init__(self):
        self.received = b""
        self.is_ended = False
        self.is_waiting = False
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def status(self):
        return 200 if self.received else 0

    def stop_reading(self):
        self._has_room.clear()

    def read_on(self):
        self._has_room.set()

    def start(self, status, headers, data):
        self.received += data

    @property
    def writer(self):
        return self

    @property
    def is_ready(self):
        return self._has_room.is_set()

    def write_chunk(self, data):
        self.received += data

    def write_framed(self, data):
        while data:
            size, _, data = data.partition(b"\r\n")
            self.received += data[: int(size, 16)]
            data = data[int(size, 16) + 2 :]

    async def write(self, data):
        self.is_waiting = not self._has_room.is_set()
        await self._has_room.wait()
        self.is_waiting = False
        self.received += data

    async def end(self, data):
        await self.write(data)
        self.is_ended = True


async def served(request, client, pool, *beside, patience=PATIENCE):
    """Drive one request to its end. `beside` are functions of the driver that run meanwhile."""
    is_over = asyncio.Event()
    tasks = Tasks(asyncio.get_running_loop())
    ongoing = Parts().begin(make_call(b"{}"))
    driver = Driver(ongoing, client, request, pool, InFlight(tasks), patience, lambda *_: is_over.set())
    async with asyncio.timeout(LIMIT_S):
        driver.start()
        await asyncio.gather(is_over.wait(), *[work(driver) for work in beside])
        await tasks.rest()


@pytest.fixture
async def pool():
    pool = Pool(asyncio.get_running_loop(), connect_timeout_s=LIMIT_S)
    yield pool
    pool.close()


async def test_what_arrives_while_a_write_waits_comes_after_it(pool):
    """The socket has room again, and the engine's next bytes are read before the waiting write runs."""
    goes_on = asyncio.Event()

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(piece(1)))
        await goes_on.wait()
        await line.send(chunk(piece(2)))
        await line.gone()

    async def read_slowly(driver):
        await until(lambda: client.received)
        client.stop_reading()
        goes_on.set()
        await until(lambda: client.is_waiting)
        client.read_on()
        driver.leg.on_data(piece(3))
        driver.leg.on_data(DONE)
        driver.leg.on_complete()

    async with scripted(talk) as engine:
        client = SlowClient()
        await served(Request(engine.origin), client, pool, read_slowly)
        pool.close()
    assert client.received == piece(1) + piece(2) + piece(3) + DONE
    assert client.is_ended


async def test_a_stream_reaches_a_client_that_stops_and_goes_on(pool):
    count = 3000
    data = b"".join(map(piece, range(count))) + DONE

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD)
        for start in range(0, len(data), 7000):
            await line.send(chunk(data[start : start + 7000]))
        await line.send(SSE_END)
        await line.gone()

    async def read_slowly(_):
        while not client.is_ended:
            client.stop_reading()
            await until(lambda: client.is_waiting or client.is_ended)
            client.read_on()
            await asyncio.sleep(0)

    async with scripted(talk) as engine:
        client = SlowClient()
        await served(Request(engine.origin), client, pool, read_slowly)
        pool.close()
    assert client.received == data


async def test_a_client_that_never_reads_the_end_is_given_up_and_nothing_stays_reserved(pool):
    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(piece(1)))
        await until(lambda: client.received)
        client.stop_reading()
        await line.send(chunk(piece(2)), chunk(DONE), b"0\r\n\r\n")
        await line.gone()

    async with scripted(talk) as engine:
        client = SlowClient()
        request = Request(engine.origin)
        released = []
        request.release = lambda ongoing: released.append(True)
        await served(request, client, pool, patience=msgspec.structs.replace(PATIENCE, idle_s=0.2))
        pool.close()
    assert released
    assert not client.is_ended
