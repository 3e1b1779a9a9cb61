"""Deadlines of legs: only content keeps a stream alive, and nothing puts the first content's deadline off."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from tests.support.cluster import CHAT, LIMIT_S, running_proxy
from tests.support.scripted import SSE_HEAD, chunk, scripted

from ppd_proxy.config.sections import Engines, Limits

TEXT = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
PACE_S = 0.02
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"


def dripping(*first, drip):
    """An engine that says `first` to a request, then `drip` for ever, a little at a time."""

    async def talk(line):
        while b"/health" in await line.request():
            await line.send(HEALTHY)
        await line.send(*first)
        with suppress(RuntimeError):  # what uvloop says when the proxy has closed the connection
            while True:
                await line.send(drip)
                await asyncio.sleep(PACE_S)

    return talk


@asynccontextmanager
async def proxy_before(talk, **limits):
    async with scripted(talk) as engine:
        url = f"http://{engine.origin.authority}"
        async with running_proxy(engines=Engines(aggregated=(url,)), limits=Limits(retries=0, **limits)) as cluster:
            yield cluster


DRIPS = pytest.mark.parametrize(
    "drip",
    [
        pytest.param(chunk(b": keep-alive\n\n"), id="comments"),
        pytest.param(chunk(b": data: no event\n\n"), id="comments that look like events"),
        pytest.param(chunk(b"d"), id="an event that never ends"),
        pytest.param(chunk(b"\n"), id="line ends"),
    ],
)


@DRIPS
async def test_only_content_keeps_a_stream_alive(drip):
    async with proxy_before(dripping(SSE_HEAD, chunk(TEXT), drip=drip), idle_timeout_s=0.2) as cluster:
        async with asyncio.timeout(LIMIT_S):
            reply = await cluster.chat("Hi", stream=True)
        assert reply.status == 200
        assert b'"reason":"engine_timeout"' in reply.body
        assert b"[DONE]" not in reply.body


@DRIPS
async def test_nothing_but_content_meets_the_deadline_of_the_first_content(drip):
    async with proxy_before(dripping(SSE_HEAD, drip=drip), first_token_timeout_s=0.2) as cluster:
        reply = await cluster.chat("Hi", stream=True)
        assert (reply.status, reply.error["reason"]) == (504, "engine_timeout")


@pytest.mark.parametrize(
    ("first", "drip"),
    [((JSON_HEAD, b"{"), b" "), ((b"HTTP/1.1 200 OK\r\n",), b"x-more: 1\r\n")],
    ids=["body", "head"],
)
async def test_drips_of_a_whole_answer_do_not_put_its_deadline_off(first, drip):
    async with proxy_before(dripping(*first, drip=drip), first_token_timeout_s=0.2) as cluster:
        reply = await cluster.ask(CHAT, {"messages": [{"role": "user", "content": "Hi"}]})
        assert (reply.status, reply.error["reason"]) == (504, "engine_timeout")


async def test_content_keeps_a_stream_alive_for_longer_than_its_idle_timeout():
    async def talk(line):
        while b"/health" in await line.request():
            await line.send(HEALTHY)
        await line.send(SSE_HEAD)
        for _ in range(30):
            await line.send(chunk(TEXT))
            await asyncio.sleep(PACE_S)
        await line.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")
        await line.gone()

    async with proxy_before(talk, idle_timeout_s=0.3) as cluster:
        assert (await cluster.chat("Hi", stream=True)).payloads[-1] == "[DONE]"
