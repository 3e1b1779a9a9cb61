"""Passed-on requests: spread like the others, with deadlines, and past engines that fail."""

import asyncio
import gc
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web
from tests.support.cluster import running_proxy, until
from tests.support.shortage import no_more_files

from ppd_proxy.config.sections import Engines, Limits, Server
from ppd_proxy.server import pass_through


class Engine:
    """Answers GET /v1/models and POST /v1/embeddings with `status`, after it was let go."""

    def __init__(self, status=200, **said):
        self.status = status
        self.said = said or {"text": '{"object": "list", "data": []}', "content_type": "application/json"}
        self.asked = 0
        self.id = ""
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def answer(self, request):
        self.asked += 1
        self.headers = request.headers
        await self.let_go.wait()
        return web.Response(status=self.status, **self.said)

    @asynccontextmanager
    async def serving(self):
        async def health(request):
            return web.Response()

        app = web.Application()
        app.router.add_get("/health", health)
        app.router.add_get("/v1/models", self.answer)
        app.router.add_post("/v1/embeddings", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handle_signals=False, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.id = "{}:{}".format(*runner.addresses[0][:2])
            yield f"http://{self.id}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def proxy_before(*engines, **sections):
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(each.serving()) for each in engines]
        yield await stack.enter_async_context(running_proxy(engines=Engines(decode=tuple(urls)), **sections))


async def models(cluster):
    return await cluster.ask("/v1/models")


async def embeddings(cluster):
    return await cluster.ask("/v1/embeddings", {"input": "Hi"})


async def test_embeddings_are_spread_over_idle_engines():
    engines = [Engine(), Engine()]
    for each in engines:
        each.let_go.clear()
    async with proxy_before(*engines) as cluster:
        asked = [cluster.tasks.spawn(embeddings(cluster)) for _ in range(60)]
        await until(lambda: sum(each.asked for each in engines) == 60)
        assert [each.asked for each in engines] == [30, 30]
        for each in engines:
            each.let_go.set()
        assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
        await until(lambda: not cluster.runtime.load.requests)


@pytest.mark.parametrize("ask", [models, embeddings])
async def test_an_engine_that_answers_500_is_passed_over(ask):
    engines = [Engine(500), Engine()]
    async with proxy_before(*engines) as cluster:
        elsewhere = cluster.runtime.load.reserve(engines[1].id, 8)
        assert {(await ask(cluster)).status for _ in range(10)} == {200}
        elsewhere.release()
        assert engines[0].asked == 1  # what failed counts as load
        assert (await cluster.samples())['ppd_retries_total{result="made"}'] == 1


PAGE = {"text": "<html>Hi</html>", "content_type": "text/html"}
JSON = {"content_type": "application/json"}
NO_ANSWERS = {
    "a redirect": {"status": 307, "headers": {"location": "http://127.0.0.1:9/"}},
    "nothing": {"status": 204, "text": ""},
    "no status of HTTP": {"status": 600, "text": "Hi"},
    "a page": PAGE,
    "half an object": {"text": '{"data": [', **JSON},
    "a list": {"text": "[]", **JSON},
    "an error": {"text": '{"error": {"message": "x"}}', **JSON},
    "too much": {"text": '{"data": "%s"}' % ("x" * 2000), **JSON},
}


@pytest.mark.parametrize("said", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_what_is_no_answer_reaches_no_client(said):
    """Another program listens on the engine's port, or the engine is broken."""
    engine = Engine(**said)
    async with proxy_before(engine, server=Server(max_answer_bytes=1024)) as cluster:
        reply = await models(cluster)
        assert (reply.status, reply.error["reason"]) == (502, "engine_error")
        assert engine.asked == 1
        if "status" in said or said is PAGE:  # the rest is passed on while it comes
            assert (await embeddings(cluster)).status == 502
        assert not cluster.runtime.load.requests


async def test_what_is_no_answer_is_asked_of_another_engine():
    engines = [Engine(**PAGE), Engine()]
    async with proxy_before(*engines) as cluster:
        elsewhere = cluster.runtime.load.reserve(engines[1].id, 8)
        assert {(await models(cluster)).status for _ in range(5)} == {200}
        elsewhere.release()
        assert engines[0].asked == 1


@pytest.mark.parametrize("ask", [models, embeddings])
async def test_when_all_engines_answer_500_so_does_the_proxy(ask):
    engines = [Engine(500), Engine(503)]
    async with proxy_before(*engines) as cluster:
        reply = await ask(cluster)
        assert reply.status in (500, 503)
        assert reply.json == {"object": "list", "data": []}
        assert [each.asked for each in engines] == [1, 1]
        assert not cluster.runtime.load.requests


async def test_a_get_goes_on_to_the_next_engine_when_one_does_not_answer(monkeypatch):
    monkeypatch.setattr(pass_through, "GET_LIMIT_S", 0.1)
    hanging, other = Engine(), Engine()
    hanging.let_go.clear()
    async with proxy_before(hanging, other) as cluster:
        elsewhere = cluster.runtime.load.reserve(other.id, 8)
        assert {(await models(cluster)).status for _ in range(6)} == {200}
        elsewhere.release()
        assert hanging.asked == 1  # what failed counts as load
        other.let_go.clear()
        reply = await models(cluster)
        assert (reply.status, reply.error["reason"]) == (504, "engine_timeout")
        assert not cluster.runtime.load.requests


async def test_a_get_has_a_limit_over_all_engines(monkeypatch):
    monkeypatch.setattr(pass_through, "GETS_LIMIT_S", 0.1)
    engines = [Engine() for _ in range(3)]
    for each in engines:
        each.let_go.clear()
    async with proxy_before(*engines) as cluster:
        reply = await models(cluster)
        assert (reply.status, sum(each.asked for each in engines)) == (504, 1)


async def test_a_post_has_a_deadline_and_is_not_sent_again_after_it():
    engines = [Engine(), Engine()]
    for each in engines:
        each.let_go.clear()
    async with proxy_before(*engines, limits=Limits(first_token_timeout_s=0.1)) as cluster:
        reply = await embeddings(cluster)
        assert (reply.status, reply.error["reason"]) == (504, "engine_timeout")
        assert sum(each.asked for each in engines) == 1
        assert not cluster.runtime.load.requests


async def test_a_client_that_leaves_takes_its_load_with_it():
    engine = Engine()
    engine.let_go.clear()
    async with proxy_before(engine) as cluster:
        asking = cluster.tasks.spawn(embeddings(cluster))
        await until(lambda: engine.asked)
        assert cluster.runtime.load.requests
        asking.cancel()
        await until(lambda: gc.collect() >= 0 and not cluster.runtime.load.requests)


async def test_want_of_sockets_is_no_fault_of_the_engine():
    async with proxy_before(Engine()) as cluster:
        await cluster.ask("/health")
        with no_more_files():
            reply = await models(cluster)
        assert (reply.status, reply.error["reason"]) == (503, "out_of_sockets")
        assert (await models(cluster)).status == 200


async def test_headers_that_the_connection_names_are_not_passed_on():
    engine = Engine()
    async with proxy_before(engine) as cluster:
        await cluster.ask("/v1/models", headers={"connection": "keep-alive, x-mine", "x-mine": "1", "x-other": "2"})
        assert ("x-mine" in engine.headers, engine.headers["x-other"]) == (False, "2")
