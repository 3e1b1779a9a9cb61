"""Kept-alive connections over real sockets."""

import asyncio
import socket

import pytest
from tests.support.in_memory import Lines
from tests.support.scripted import BODY, HEAD, LIMIT_S, OK, Line, repeat, scripted, until

from ppd_proxy.upstream.leg_request import Origin
from ppd_proxy.upstream.pool import IDLE_LIMIT_S, Pool
from ppd_wire.errors import EngineFailure


class Answer:
    heard_at, is_answering = 0.0, False

    def __init__(self):
        self.body = b""
        self.done = asyncio.Event()
        self.failure = None

    def on_headers(self, status, headers):
        pass

    def on_data(self, data):
        self.body += data

    def on_complete(self):
        self.done.set()

    def on_failure(self, failure, *, is_untouched):
        self.failure = failure
        self.done.set()


@pytest.fixture
async def pool():
    pool = Pool(asyncio.get_running_loop(), connect_timeout_s=LIMIT_S)
    yield pool
    pool.close()


async def ask(connection):
    answer = Answer()
    connection.request(HEAD, BODY, answer)
    async with asyncio.timeout(LIMIT_S):
        await answer.done.wait()
    return answer


async def take(pool, origin):
    return pool.take(origin) or await pool.connect(origin)


async def test_a_connection_is_used_again(pool):
    async with scripted(repeat(OK, OK, OK)) as engine:
        for _ in range(3):
            connection = await take(pool, engine.origin)
            assert (await ask(connection)).body == b"{}"
        assert engine.connections == 1
        pool.close()


async def test_a_connection_in_use_is_not_lent_twice(pool):
    async with scripted(repeat(OK, OK)) as engine:
        first = await take(pool, engine.origin)
        second = await take(pool, engine.origin)
        assert first is not second
        await asyncio.gather(ask(first), ask(second))
        assert pool.take(engine.origin) is not pool.take(engine.origin)
        assert pool.take(engine.origin) is None
        pool.close()


async def test_the_connection_used_last_is_taken_first(pool):
    async with scripted(repeat(OK, OK)) as engine:
        first, second = await pool.connect(engine.origin), await pool.connect(engine.origin)
        await ask(second)
        await ask(first)
        assert pool.take(engine.origin) is first
        pool.close()


async def test_p29_a_connection_idle_for_too_long_is_not_used(pool):
    """uvicorn closes after 5 s; a request sent into that moment is lost."""
    async with scripted(repeat(OK)) as engine:
        connection = await pool.connect(engine.origin)
        await ask(connection)
        connection.idle_since -= IDLE_LIMIT_S
        assert pool.take(engine.origin) is None
        assert not connection.is_open


async def test_p29_a_connection_that_the_engine_closed_is_not_used(pool):
    async def talk(line: Line):
        await line.request()
        await line.send(OK)

    async with scripted(talk) as engine:
        connection = await pool.connect(engine.origin)
        await ask(connection)
        await until(lambda: not connection.is_open)
        assert pool.take(engine.origin) is None
        assert (await ask(await take(pool, engine.origin))).body == b"{}"
        assert engine.connections == 2


async def test_stale_connections_are_closed_and_fresh_ones_stay(pool):
    async with scripted(repeat(OK, OK)) as engine:
        old, fresh = await pool.connect(engine.origin), await pool.connect(engine.origin)
        await ask(old)
        await ask(fresh)
        old.idle_since -= IDLE_LIMIT_S
        pool.close_stale()
        assert not old.is_open
        assert pool.take(engine.origin) is fresh
        pool.close_stale()
        assert fresh.is_open  # in use
        pool.close()


async def test_closing_the_pool_closes_idle_and_busy_connections(pool):
    async def talk(line: Line):
        await line.request()
        await line.gone()

    async with scripted(talk) as engine:
        busy = await pool.connect(engine.origin)
        answer = Answer()
        busy.request(HEAD, BODY, answer)
        idle = await pool.connect(engine.origin)
        pool.close()
        assert not busy.is_open
        assert not idle.is_open
    assert not answer.done.is_set()


async def test_p12_a_refused_connection_is_a_503(pool):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so that nobody else can take the port
        port = taken.getsockname()[1]
        with pytest.raises(EngineFailure) as caught:
            await pool.connect(Origin("127.0.0.1", port, False, f"127.0.0.1:{port}"))
    assert (caught.value.status, caught.value.reason) == (503, "engine_unreachable")
    assert str(port) in caught.value.message


async def test_p6_an_engine_that_does_not_accept_is_given_up_in_time():
    pool = Pool(asyncio.get_running_loop(), connect_timeout_s=0.05)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the queue of connections nobody accepts is full soon
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        try:
            with pytest.raises(EngineFailure, match=r"within 0\.05 s") as caught:
                await pool.connect(Origin("127.0.0.1", port, False, f"127.0.0.1:{port}"))
        finally:
            for filler in fillers:
                filler.close()
    assert (caught.value.status, caught.value.reason) == (503, "engine_unreachable")


async def test_where_sockets_run_out_idle_connections_leave_for_one_that_is_needed():
    lines = Lines(most=2)
    pool = Pool(lines, connect_timeout_s=LIMIT_S)
    origins = [Origin(name, 80, False, name) for name in "abc"]
    for origin, line in zip(origins[:2], range(2), strict=True):
        connection = await pool.connect(origin)
        connection.request(HEAD, BODY, Answer())
        lines.opened[line].replies(200, b"{}")
    assert await pool.connect(origins[2])
    assert [line.is_closing() for line in lines.opened] == [True, True, False]
    assert pool.take(origins[0]) is None


async def test_where_sockets_run_out_and_none_is_idle_there_is_no_connection():
    lines = Lines(most=1)
    pool = Pool(lines, connect_timeout_s=LIMIT_S)
    await pool.connect(Origin("a", 80, False, "a"))
    with pytest.raises(EngineFailure, match="no more sockets") as caught:
        await pool.connect(Origin("b", 80, False, "b"))
    assert caught.value.status == 503
    assert not lines.opened[0].is_closing()
