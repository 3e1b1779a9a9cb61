"""Engines that are well stay in use, however slow their probes are and whatever this process runs out of."""

import asyncio
from contextlib import AsyncExitStack

from aiohttp import web
from tests.support.cluster import running_cluster, running_proxy, scripted_engine, until
from tests.support.shortage import no_more_files

from ppd_proxy.config.sections import Discovery, Engines

PROBES = Discovery(discovery_port=0, probe_interval_s=0.03, probe_timeout_s=0.02)
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ENOUGH = 15
"""Rounds of probes after which an engine that counted as late is down."""


class Busy:
    """An engine that streams until it is let go, and answers its first probe only."""

    def __init__(self):
        self.probes = 0
        self.let_go = asyncio.Event()

    async def health(self, request):
        self.probes += 1
        if self.probes > 1:
            await self.let_go.wait()
        return web.Response()

    async def answer(self, request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while not self.let_go.is_set():
            await response.write(TEXT)
            await asyncio.sleep(0.005)
        await response.write(END)
        return response


async def test_an_engine_that_streams_is_up_although_its_probes_get_no_answer():
    async with AsyncExitStack() as stack:
        busy, other = Busy(), Busy()
        other.let_go.set()
        urls = [
            await stack.enter_async_context(scripted_engine(each.answer, health=each.health)) for each in (busy, other)
        ]
        cluster = await stack.enter_async_context(
            running_proxy(engines=Engines(aggregated=tuple(urls)), discovery=PROBES)
        )
        streams = [cluster.tasks.spawn(cluster.chat(f"Hi {number}", stream=True)) for number in range(8)]
        await until(lambda: busy.probes > ENOUGH)
        states = {engine.url: engine.state for engine in cluster.runtime.fleet.engines()}
        busy.let_go.set()
        replies = await asyncio.gather(*streams)
        assert states == dict.fromkeys(urls, "up")
        assert {reply.payloads[-1] for reply in replies} == {"[DONE]"}


async def test_the_same_engine_goes_down_once_it_streams_no_more():
    async with AsyncExitStack() as stack:
        silent, other = Busy(), Busy()
        other.let_go.set()
        urls = [
            await stack.enter_async_context(scripted_engine(each.answer, health=each.health))
            for each in (silent, other)
        ]
        cluster = await stack.enter_async_context(
            running_proxy(engines=Engines(aggregated=tuple(urls)), discovery=PROBES)
        )
        await until(lambda: [engine.state for engine in cluster.runtime.fleet.engines()].count("down") == 1)
        silent.let_go.set()


async def test_slow_embeddings_do_not_keep_probes_from_an_engine():
    let_go = asyncio.Event()
    probed = 0

    async def health(request):
        nonlocal probed
        probed += 1
        return web.Response()

    async def embed(request):
        await let_go.wait()
        return web.json_response({"data": []})

    async with (
        scripted_engine(embed, "/v1/embeddings", health=health) as url,
        running_proxy(engines=Engines(decode=(url,)), discovery=PROBES) as cluster,
    ):
        asked = [cluster.tasks.spawn(cluster.ask("/v1/embeddings", {"input": "x"})) for _ in range(230)]
        before = probed
        await until(lambda: probed > before + ENOUGH)
        (engine,) = cluster.runtime.fleet.engines()
        let_go.set()
        assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
        assert engine.state == "up"


async def test_an_engine_is_not_blamed_for_the_sockets_that_the_proxy_has_not():
    async with running_cluster() as cluster:
        await cluster.ask("/health")  # the client's connection is open
        with no_more_files():
            replies = [await cluster.chat(f"Hi {number}") for number in range(8)]
        assert {(reply.status, reply.error["reason"]) for reply in replies} == {(503, "out_of_sockets")}
        assert {cluster.state_of(engine) for engine in cluster.engines} == {"up"}
        assert (await cluster.chat("Hi")).status == 200
