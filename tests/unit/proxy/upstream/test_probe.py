import asyncio
import contextlib
import socket

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.support.shortage import no_more_files

from ppd_core.fleet.engine import Engine
from ppd_proxy.upstream.client import engine_errors
from ppd_proxy.upstream.probe import Prober
from ppd_proxy.upstream.shortage import Shortage
from ppd_shell.http import engine_headers, make_session
from ppd_wire.errors import EngineFailure

LIMIT_S = 10.0
FOREVER_S = 3600.0


@pytest.fixture
async def session():
    async with make_session() as session:
        yield session


@pytest.fixture
async def serve():
    """Starts an HTTP server with these GET handlers on a free port and returns it as an engine."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**handlers):
            app = web.Application()
            app.add_routes([web.get(path.replace("__", "/"), handler) for path, handler in handlers.items()])
            server = await stack.enter_async_context(TestServer(app, handler_cancellation=True))
            return engine_at(server.port)

        yield start


@pytest.fixture
def dead_engine():
    """An engine on a port that is bound but not listening, so that nobody else can take it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield engine_at(taken.getsockname()[1])


def engine_at(port):
    address = f"127.0.0.1:{port}"
    return Engine(id=address, url=f"http://{address}", role="decode", handoff="nixl", state="up", source="static")


def answer(status, **headers):
    async def handler(request):
        return web.Response(status=status, headers=headers)

    return handler


async def hang(request):
    await asyncio.Event().wait()


def prober(session, engines, results, *, interval_s=FOREVER_S, timeout_s=LIMIT_S, api_key=None):
    def on_result(engine, result, since):
        results[engine.id] = result

    return a_prober(session, engines, on_result, interval_s=interval_s, timeout_s=timeout_s, api_key=api_key)


def a_prober(session, engines, on_result, *, interval_s=FOREVER_S, timeout_s=LIMIT_S, api_key=None):
    return Prober(
        session, lambda: engines, on_result, interval_s=interval_s, timeout_s=timeout_s, api_key=api_key,
        shortage=Shortage(asyncio.get_running_loop().time),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "result"),
    [(200, "good"), (204, "good"), (302, "missed"), (401, "missed"), (500, "missed"), (503, "missed")],
)
async def test_an_engine_is_healthy_when_health_answers_2xx(session, serve, status, result):
    elsewhere = {"Location": "/v1/models"} if status == 302 else {}
    engine, results = await serve(__health=answer(status, **elsewhere), __v1__models=answer(200)), {}
    await prober(session, [engine], results).probe_all()
    assert results == {engine.id: result}


@pytest.mark.parametrize(("models_status", "result"), [(200, "good"), (404, "missed"), (500, "missed")])
async def test_an_engine_without_health_is_asked_for_its_models(session, serve, models_status, result):
    engine, results = await serve(__v1__models=answer(models_status)), {}
    await prober(session, [engine], results).probe_all()
    assert results == {engine.id: result}


async def test_an_engine_that_cannot_be_reached_is_not_healthy(session, dead_engine):
    results = {}
    await prober(session, [dead_engine], results).probe_all()
    assert results == {dead_engine.id: "missed"}


async def test_an_engine_that_speaks_no_http_is_not_healthy(session):
    async def talk(reader, writer):
        writer.write(b"220 mail\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        engine, results = engine_at(server.sockets[0].getsockname()[1]), {}
        await prober(session, [engine], results).probe_all()
    assert results == {engine.id: "missed"}


async def test_an_engine_that_does_not_answer_in_time_is_late_which_is_not_refusing(session, serve):
    engine, results = await serve(__health=hang), {}
    await prober(session, [engine], results, timeout_s=0.05).probe_all()
    assert results == {engine.id: "late"}


async def test_probes_that_this_process_has_no_socket_for_say_nothing_of_the_engine(session, serve, caplog):
    engine, results = await serve(__health=answer(200)), {}
    probing = prober(session, [engine], results)
    with no_more_files():
        for _ in range(3):
            await probing.probe_all()
    assert results == {}
    (said,) = caplog.messages
    assert "ulimit -n" in said
    await probing.probe_all()
    assert results == {engine.id: "good"}


async def test_a_late_result_tells_when_the_probe_before_it_began(session, serve):
    engine, told, loop = await serve(__health=answer(200)), [], asyncio.get_running_loop()
    probing = a_prober(session, [engine], lambda *result: told.append(result))
    began_at = [loop.time()]
    for _ in range(3):
        await probing.probe_all()
        began_at.append(loop.time())
    assert began_at[0] <= told[0][2] <= told[1][2] <= began_at[1] <= told[2][2] <= began_at[2]


async def test_the_api_key_is_sent(session, serve):
    async def guarded(request):
        return web.Response(status=200 if request.headers.get("Authorization") == "Bearer secret" else 401)

    engine, results = await serve(__health=guarded), {}
    await prober(session, [engine], results, api_key="secret").probe_all()
    assert results == {engine.id: "good"}
    await prober(session, [engine], results).probe_all()
    assert results == {engine.id: "missed"}


async def test_a_slow_engine_does_not_delay_the_others(session, serve):
    slow, quick, heard = await serve(__health=hang), await serve(__health=answer(200)), asyncio.Queue()
    engines = [slow, quick]
    probing = a_prober(
        session, engines, lambda engine, result, since: heard.put_nowait((engine.id, result)),
        interval_s=0.2, timeout_s=60.0,
    )  # fmt: skip
    running = asyncio.create_task(probing.run())  # noqa: TID251 - the test cancels it itself
    async with asyncio.timeout(LIMIT_S):
        results = [await heard.get() for _ in range(4)]
        assert results[0] == (quick.id, "good")
        assert sorted(results) == sorted([(quick.id, "good"), (slow.id, "late")] * 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_each_round_asks_for_the_engines_anew(session, serve):
    engines, results = [], {}
    probing = prober(session, engines, results)
    await probing.probe_all()
    assert results == {}
    engines.append(await serve(__health=answer(200)))
    await probing.probe_all()
    assert results == {engines[0].id: "good"}


# The client


async def failure_of(session, engine, **options):
    with pytest.raises(EngineFailure, match=f"engine {engine.id}") as caught, engine_errors(engine.id):
        async with session.get(engine.url, **options) as response:
            await response.read()
    return caught.value


async def test_a_refused_connection_is_an_unreachable_engine(session, dead_engine):
    failure = await failure_of(session, dead_engine)
    assert (failure.status, failure.reason, failure.source) == (502, "engine_unreachable", "engine")


async def test_a_late_answer_is_a_timeout(session, serve):
    failure = await failure_of(session, await serve(__=hang), timeout=aiohttp.ClientTimeout(total=0.05))
    assert (failure.status, failure.reason) == (504, "engine_timeout")


async def test_an_answer_cut_short_is_an_engine_error(session):
    async def half(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        writer.close()

    async with await asyncio.start_server(half, "127.0.0.1", 0) as server:
        failure = await failure_of(session, engine_at(server.sockets[0].getsockname()[1]))
    assert (failure.status, failure.reason) == (502, "engine_error")


async def test_cookies_of_an_engine_are_not_sent_back(session, serve):
    seen = []

    async def set_cookie(request):
        seen.append(dict(request.cookies))
        return web.Response(headers={"Set-Cookie": "user=alice"})

    engine = await serve(__=set_cookie)
    for _ in range(2):
        async with session.get(engine.url.replace("127.0.0.1", "localhost")):
            pass
    assert seen == [{}, {}]


def test_without_a_key_no_authorization_is_sent():
    assert engine_headers(None) == {}
    assert engine_headers("secret") == {"Authorization": "Bearer secret"}
