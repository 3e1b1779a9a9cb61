"""What engines say that is no answer, by its status, its kind or its body: the leg failed, and may be tried again."""

import asyncio

import pytest
from tests.support.legs import WHOLE, Bench
from tests.support.scripted import LIMIT_S, SSE_END, SSE_HEAD, Line, answer, chunk, repeat, scripted

from ppd_proxy.upstream.events import LegEnded, LegFailed

TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
EVENTS = TEXT + b"data: [DONE]\n\n"


@pytest.fixture
async def bench():
    bench = Bench()
    yield bench
    bench.pool.close()


async def play(bench, said, *, is_stream=False):
    """The event of a leg whose engine says that and then closes the connection."""

    async def talk(line: Line):
        await line.request()
        await line.send(said)

    async with scripted(talk) as engine:
        return await bench.ask(engine.origin, is_stream=is_stream)


def assert_failed(event):
    assert isinstance(event, LegFailed), event
    assert (event.error.status, event.error.reason, event.was_sent) == (502, "engine_error", True)


STATUSES = [b"000", b"001", b"099", b"101", b"201", b"202", b"204", b"206", b"299", b"300", b"301", b"302", b"304",
            b"307", b"308", b"399", b"600", b"700", b"999"]  # fmt: skip


@pytest.mark.parametrize("is_stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("status", STATUSES)
async def test_w3_a_status_that_is_neither_200_nor_an_error_is_a_failure(bench, status, is_stream):
    body = EVENTS if is_stream else WHOLE
    head = b"HTTP/1.1 %b X\r\nlocation: http://10.0.0.1/\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (
        status, b"text/event-stream" if is_stream else b"application/json", len(body),
    )  # fmt: skip
    assert_failed(await play(bench, head + body, is_stream=is_stream))


async def test_w3_a_status_that_is_no_answer_is_not_waited_for(bench):
    is_gone = asyncio.Event()

    async def talk(line: Line):
        await line.request()
        await line.send(b"HTTP/1.1 307 X\r\nlocation: http://10.0.0.1/\r\ncontent-length: 9\r\n\r\n")
        await line.gone()
        is_gone.set()

    async with scripted(talk) as engine:
        assert_failed(await bench.ask(engine.origin))
        async with asyncio.timeout(LIMIT_S):
            await is_gone.wait()


@pytest.mark.parametrize("status", [400, 404, 429, 499, 500, 503, 599])
async def test_the_errors_of_engines_are_their_answers(bench, status):
    assert await play(bench, answer(status, b'{"error":{"message":"no"}}')) == LegEnded(status=status)


@pytest.mark.parametrize(
    "body",
    [
        b"<h1>hi</h1>", b"{}", b'{"error":{"message":"no"}}', b'{"choices":[{"mess', b'{"choices":[],"usage":NaN}',
        b"[]", b'{"status":"ok"}', EVENTS,
    ],
)  # fmt: skip
async def test_w3_a_200_that_is_no_answer_is_a_failure(bench, body):
    assert_failed(await play(bench, answer(200, body)))
    assert_failed(await play(bench, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + body))


@pytest.mark.parametrize("media_type", ["application/json", "text/html", "text/plain"])
async def test_w3_no_stream_where_one_was_asked_for_is_a_failure(bench, media_type):
    """A client that reads events finds none in a JSON body, and takes the answer for an empty one."""
    assert_failed(await play(bench, answer(200, WHOLE, media_type), is_stream=True))
    assert_failed(await play(bench, answer(200, EVENTS, media_type), is_stream=True))


async def test_w3_a_stream_that_nobody_asked_for_is_not_waited_for(bench):
    async with scripted(repeat(SSE_HEAD + chunk(TEXT))) as engine:
        assert_failed(await bench.ask(engine.origin))


@pytest.mark.parametrize("first", [b"<h1>hi</h1>\n\n", b"data: <h1>hi</h1>\n\n", b"data: {}\n\n", WHOLE])
async def test_w3_a_stream_of_something_else_is_a_failure(bench, first):
    said = SSE_HEAD + chunk(first) + chunk(TEXT[:-9]) + SSE_END
    assert_failed(await play(bench, said, is_stream=True))


async def test_a_stream_is_one_however_its_type_is_written(bench):
    said = answer(200, EVENTS, "Text/Event-Stream;charset=utf-8")
    await play(bench, said, is_stream=True)
    assert await bench.next() == LegEnded(status=200)
