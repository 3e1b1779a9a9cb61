"""One leg over a real socket: which events come of what an engine says."""

import asyncio
import json
import socket

import pytest
from tests.support.legs import WHOLE, Bench
from tests.support.scripted import LIMIT_S, SSE_END, SSE_HEAD, Line, answer, chunk, repeat, scripted, until

from ppd_proxy.upstream.events import FirstByte, LegEnded, LegFailed
from ppd_proxy.upstream.leg import HIGH_WATER_BYTES
from ppd_proxy.upstream.leg_request import Origin

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
ERROR = b'data: {"error": {"message": "Internal server error", "type": "InternalServerError", "code": 500}}\n\n'
DONE = b"data: [DONE]\n\n"
TOO_LONG = b'{"error":{"message":"This model\'s maximum context length is 4096 tokens.","code":500}}'
READ_BYTES = 256 * 1024
"""The most that one read of the event loop delivers."""


@pytest.fixture
async def bench():
    bench = Bench()
    yield bench
    bench.pool.close()


def stream(*events):
    return SSE_HEAD + b"".join(map(chunk, events)) + SSE_END


def cut(*pieces):
    """Answer one request with `pieces` and close."""

    async def talk(line: Line):
        await line.request()
        await line.send(*pieces)

    return talk


async def play(bench, *pieces, is_stream=False):
    """The event of a leg that is answered with `pieces`; its connection stays open."""
    async with scripted(repeat(b"".join(pieces))) as engine:
        event = await bench.ask(engine.origin, is_stream=is_stream)
        bench.pool.close()
    return event


# Whole answers


async def test_a_whole_answer_ends_the_leg(bench):
    assert await play(bench, answer(200, WHOLE)) == LegEnded(status=200)
    assert (bench.leg.status, bench.leg.body) == (200, WHOLE)
    assert (b"content-type", b"application/json") in bench.leg.headers


async def test_an_answer_in_many_pieces_is_one_body(bench):
    body = b'{"choices":[{"text":"%b"}]}' % (b"0123456789" * 20_000)
    pieces = [chunk(body[start : start + 1000]) for start in range(0, len(body), 1000)]
    assert await play(bench, SSE_HEAD.replace(b"text/event-stream", b"x"), *pieces, SSE_END) == LegEnded(status=200)
    assert bench.leg.body == body


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
async def test_p10_the_engines_status_and_body_are_kept(bench, status):
    body = b'{"error":{"message":"no","code":%d}}' % status
    for is_stream in (False, True):
        assert await play(bench, answer(status, body), is_stream=is_stream) == LegEnded(status=status)
        assert bench.leg.body == body


async def test_p11_a_500_about_the_prompts_length_is_the_clients_fault(bench):
    assert await play(bench, answer(500, TOO_LONG)) == LegEnded(status=500, is_client_fault=True)
    assert await play(bench, answer(400, TOO_LONG)) == LegEnded(status=400)


@pytest.mark.parametrize("body", [b"", b" \r\n"])
async def test_p9_a_200_with_an_empty_body_is_a_failure(bench, body):
    event = await play(bench, answer(200, body))
    assert isinstance(event, LegFailed)
    assert (event.error.status, event.was_sent) == (502, True)


async def test_an_answer_until_the_end_of_the_connection_is_whole(bench):
    async with scripted(cut(b"HTTP/1.1 200 OK\r\n\r\n" + WHOLE)) as engine:
        assert await bench.ask(engine.origin) == LegEnded(status=200)
    assert bench.leg.body == WHOLE


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"garbage", stream(TEXT)[:-9]]
)
async def test_an_answer_that_is_cut_or_garbled_is_a_failure(bench, said):
    async with scripted(cut(said)) as engine:
        event = await bench.ask(engine.origin)
    assert isinstance(event, LegFailed)
    assert (event.error.status, event.error.reason, event.was_sent) == (502, "engine_error", True)


async def test_p12_an_engine_that_refuses_never_got_the_request(bench):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        event = await bench.ask(Origin("127.0.0.1", port, False, f"127.0.0.1:{port}"))
    assert isinstance(event, LegFailed)
    assert (event.was_sent, event.error.status) == (False, 503)


# P29: the engine closes an idle connection


def closes_after_one_answer(*, answers_later=True):
    """Answers the first request of its first connection and closes it when the second comes."""
    seen = []

    async def talk(line: Line):
        seen.append(line)
        await line.request()
        if len(seen) == 1:
            await line.send(answer(200, WHOLE))
            await line.request()
            line.reset()
        elif answers_later:
            await line.send(answer(200, WHOLE))
            await line.gone()

    return talk


async def test_p29_a_request_on_a_closed_connection_is_sent_again_on_a_new_one(bench):
    async with scripted(closes_after_one_answer()) as engine:
        assert await bench.ask(engine.origin) == LegEnded(status=200)
        assert await bench.ask(engine.origin) == LegEnded(status=200)
        assert bench.leg.body == WHOLE
        assert engine.connections == 2
        bench.pool.close()


async def test_p29_a_leg_that_consumes_kv_is_not_sent_twice(bench):
    async with scripted(closes_after_one_answer()) as engine:
        await bench.ask(engine.origin)
        event = await bench.ask(engine.origin, is_retriable=False)
        assert engine.connections == 1
    assert isinstance(event, LegFailed)
    assert event.was_sent


async def test_p29_a_request_is_sent_again_only_once(bench):
    async with scripted(closes_after_one_answer(answers_later=False)) as engine:
        await bench.ask(engine.origin)
        assert isinstance(await bench.ask(engine.origin), LegFailed)
        assert engine.connections == 2


async def test_p29_an_engine_that_is_gone_for_good_is_unreachable(bench):
    async def talk(line: Line):
        await line.request()
        await line.send(answer(200, WHOLE))
        await line.request()
        server.close()
        line.reset()

    async with scripted(talk) as engine:
        server = await engine.start()
        await bench.ask(engine.origin)
        event = await bench.ask(engine.origin)
    assert isinstance(event, LegFailed)
    assert not event.was_sent


# Streams


async def test_a_stream_begins_with_its_first_content_and_ends_with_done(bench):
    assert await play(bench, stream(ROLE, TEXT, DONE), is_stream=True) == FirstByte()
    assert await bench.next() == LegEnded(status=200)
    assert bench.leg.take() == ROLE + TEXT + DONE
    assert bench.leg.first_token_at is not None


@pytest.mark.parametrize("events", [[ROLE, ERROR, DONE], [ERROR, DONE]])
async def test_p9_an_error_before_content_is_the_answer_it_should_have_been(bench, events):
    event = await play(bench, stream(*events), is_stream=True)
    assert event == LegEnded(status=500)
    assert json.loads(bench.leg.body)["error"]["code"] == 500
    assert bench.leg.headers == [(b"content-type", b"application/json")]
    assert not bench.posted.events


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "x"}, 502), ({"code": "500"}, 502), ({"code": None}, 502), ({"code": 200}, 502), ("text", 502),
        ({"code": 404}, 404), ({"code": 599}, 599), ([], 502),
    ],
)  # fmt: skip
async def test_p9_an_error_event_without_a_sound_status_is_a_502(bench, error, status):
    event = await play(bench, stream(b"data: " + json.dumps({"error": error}).encode() + b"\n\n"), is_stream=True)
    assert event == LegEnded(status=status)


async def test_p11_an_error_event_about_the_prompts_length_is_the_clients_fault(bench):
    event = await play(bench, stream(ROLE, b"data: " + TOO_LONG + b"\n\n", DONE), is_stream=True)
    assert event == LegEnded(status=500, is_client_fault=True)


async def test_p9_a_stream_without_any_content_is_a_failure(bench):
    """A role chunk and [DONE], or nothing but [DONE]: relayed whole it would be a 200 with an empty body."""
    for events in ([ROLE, DONE], [DONE]):
        event = await play(bench, stream(*events), is_stream=True)
        assert isinstance(event, LegFailed), event


async def test_p9_a_stream_that_ends_before_its_content_is_a_failure(bench):
    for events in ([], [ROLE]):
        assert isinstance(await play(bench, stream(*events), is_stream=True), LegFailed)


async def test_p13_a_stream_without_done_is_a_failure(bench):
    assert await play(bench, stream(ROLE, TEXT), is_stream=True) == FirstByte()
    assert isinstance(await bench.next(), LegFailed)


async def test_p13_a_stream_that_is_cut_is_a_failure(bench):
    async with scripted(cut(SSE_HEAD, chunk(ROLE), chunk(TEXT))) as engine:
        await bench.open(engine.origin, is_stream=True)
        event, out = await bench.relayed()
    assert isinstance(event, LegFailed)
    assert out == ROLE + TEXT


async def test_p13_a_later_error_ends_the_stream_without_done(bench):
    async with scripted(repeat(stream(ROLE, TEXT, ERROR, DONE))) as engine:
        await bench.open(engine.origin, is_stream=True)
        event, out = await bench.relayed()
        bench.pool.close()
    assert isinstance(event, LegFailed)
    assert (event.error.status, event.error.reason) == (502, "engine_error")
    assert out == ROLE + TEXT + ERROR
    assert bench.leg.relay.error is not None


async def test_a_stream_split_into_single_bytes_is_the_same(bench):
    data = stream(ROLE, TEXT, DONE)
    async with scripted(cut(*(data[index : index + 1] for index in range(len(data))))) as engine:
        await bench.open(engine.origin, is_stream=True)
        event, out = await bench.relayed()
    assert event == LegEnded(status=200)
    assert out == ROLE + TEXT + DONE


async def test_p9_an_engine_that_hangs_after_an_early_error_is_let_go(bench):
    """The leg is over with the error event; its connection must not stay behind."""
    is_let_go = asyncio.Event()

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(ROLE), chunk(ERROR))
        await line.gone()
        is_let_go.set()

    async with scripted(talk) as engine:
        assert await bench.ask(engine.origin, is_stream=True) == LegEnded(status=500)
        try:
            async with asyncio.timeout(1.0):
                await is_let_go.wait()
        finally:
            bench.pool.close()


# Leaving


async def test_an_aborted_leg_closes_its_connection_and_says_nothing_more(bench):
    is_gone = asyncio.Event()

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD, chunk(ROLE), chunk(TEXT))
        await line.gone()
        is_gone.set()

    async with scripted(talk) as engine:
        assert await bench.ask(engine.origin, is_stream=True) == FirstByte()
        bench.leg.abort()
        async with asyncio.timeout(LIMIT_S):
            await is_gone.wait()
    assert not bench.posted.events
    assert bench.pool.take(engine.origin) is None


async def test_an_aborted_leg_is_not_opened_again(bench):
    async with scripted(closes_after_one_answer()) as engine:
        await bench.ask(engine.origin)
        leg = await bench.open(engine.origin)
        await until(lambda: leg.needs_reopen)
        leg.abort()
        await leg.reopen()
        assert engine.connections == 1
    assert not bench.posted.events


# Slow clients


async def test_a_client_that_does_not_read_holds_the_engine_back(bench):
    event = b'data: {"choices":[{"text":"%b"}]}\n\n' % (b"x" * 16_000)
    piece, count = chunk(event), 32 * HIGH_WATER_BYTES // len(event)
    sent = []

    async def talk(line: Line):
        await line.request()
        await line.send(SSE_HEAD)
        for _ in range(count):
            await line.send(piece)
            sent.append(piece)
        await line.send(chunk(DONE), SSE_END)
        await line.gone()

    async with scripted(talk) as engine:
        leg = await bench.open(engine.origin, is_stream=True)
        assert await bench.next() == FirstByte()
        await until(lambda: sum(map(len, leg.out)) > HIGH_WATER_BYTES)
        for _ in range(2000):  # long enough for everything to arrive, if nobody held it back
            await asyncio.sleep(0)
        assert sum(map(len, leg.out)) <= HIGH_WATER_BYTES + READ_BYTES
        assert len(sent) < count
        received = 0
        while not bench.posted.events:
            received += len(leg.take())
            await until(lambda: leg.out or bench.posted.events)
        received += len(leg.take())
        assert received == count * len(event) + len(DONE)
        assert bench.posted.events.popleft() == LegEnded(status=200)
        assert len(sent) == count
        bench.pool.close()
