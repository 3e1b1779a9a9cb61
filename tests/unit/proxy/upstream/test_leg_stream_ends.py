"""Where a streamed answer ends, and what becomes of the connection that brought it."""

import asyncio

import pytest
from tests.support.legs import WHOLE, Bench
from tests.support.scripted import LIMIT_S, SSE_END, SSE_HEAD, Line, answer, chunk, scripted, until

from ppd_proxy.upstream.events import LegEnded, LegFailed
from ppd_wire.events import MAX_EVENT_BYTES

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def bench():
    bench = Bench()
    yield bench
    bench.pool.close()


@pytest.mark.parametrize("ending", ["reset", "silence", "end"])
async def test_w5_nothing_that_happens_behind_done_is_part_of_the_answer(bench, ending):
    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(ROLE), chunk(TEXT), chunk(DONE))
        if ending == "reset":
            line.reset()
        elif ending == "end":
            await line.send(SSE_END)
        await line.gone()

    async with scripted(talk) as engine:
        await bench.open(engine.origin, is_stream=True)
        event, out = await bench.relayed()
        assert event == LegEnded(status=200)
        assert out == ROLE + TEXT + DONE
        assert not bench.posted.events
        bench.pool.close()


async def test_w5_a_connection_serves_again_once_the_engine_ended_its_answer(bench):
    """The end of the body often comes in a read of its own, behind [DONE]."""
    is_read = asyncio.Event()

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(TEXT), chunk(DONE))
        await is_read.wait()
        await line.send(SSE_END)
        await line.request()
        await line.send(answer(200, WHOLE))
        await line.gone()

    async with scripted(talk) as engine:
        await bench.open(engine.origin, is_stream=True)
        assert (await bench.relayed())[0] == LegEnded(status=200)
        assert bench.pool.take(engine.origin) is None, "the answer has not ended yet"
        is_read.set()
        await until(lambda: any(bench.pool._idle.values()))
        assert await bench.ask(engine.origin) == LegEnded(status=200)
        assert engine.connections == 1
        bench.pool.close()


@pytest.mark.parametrize("behind", [chunk(TEXT), chunk(DONE), b"garbage"], ids=["content", "done", "no HTTP"])
async def test_w5_a_connection_with_more_behind_done_is_closed(bench, behind):
    is_gone = asyncio.Event()

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(TEXT), chunk(DONE), behind)
        await line.gone()
        is_gone.set()

    async with scripted(talk) as engine:
        await bench.open(engine.origin, is_stream=True)
        assert await bench.relayed() == (LegEnded(status=200), TEXT + DONE)
        async with asyncio.timeout(LIMIT_S):
            await is_gone.wait()
        bench.pool.close()


async def test_s1_a_stream_with_an_event_that_never_ends_is_cut(bench):
    is_gone = asyncio.Event()
    piece = chunk(b"x" * 65_536)

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(TEXT), *[piece] * (MAX_EVENT_BYTES // 65_536 + 1))
        await line.gone()
        is_gone.set()

    async with scripted(talk) as engine:
        await bench.open(engine.origin, is_stream=True)
        event, out = await bench.relayed()
        assert isinstance(event, LegFailed)
        assert "4194304 bytes" in event.error.message
        assert out == TEXT
        async with asyncio.timeout(LIMIT_S):
            await is_gone.wait()
        bench.pool.close()
