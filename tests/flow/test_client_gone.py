"""`client_gone=true` in a request's line: the client left before all of its answer was handed over, and only then."""

import asyncio
import json
import re
import socket

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, LIMIT_S, running_cluster, running_proxy, scripted_engine, until, user

from ppd_proxy.config.sections import Engines, Limits
from ppd_sim.faults import Fault

EVENT = b'data: {"id":"a","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
END = b'data: {"id":"a","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def line(capsys):
    """The request's line, once the proxy has stopped."""

    def read():
        said = capsys.readouterr().err
        [found] = [each for each in said.splitlines() if " ppd_proxy.request: " in each]
        return dict(re.findall(r"(\w+)=(\S+)", found))

    return read


async def ask(url, *, stream, receive_bytes=None, close=False):
    """A request on a connection of its own, of which `receive_bytes` arrive unread at most."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    body = json.dumps({"messages": [user("Hi")], "stream": stream}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + (b"connection: close\r\n" if close else b"") + b"\r\n" + body)
    return reader, writer


async def read_until(reader, last):
    data = b""
    async with asyncio.timeout(LIMIT_S):
        while last not in data:
            piece = await reader.read(65536)
            assert piece, data
            data += piece
    return data


def streaming(*pieces, then=None, told=None):
    """An engine whose stream is these pieces; `then` is awaited before its end, which sets `told`."""

    async def answer(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if then is not None:
            await then.wait()
        await response.write_eof()
        if told is not None:
            told.set()
        return response

    return answer


async def over(cluster):
    await until(lambda: not any(cluster.runtime.load.requests.values()))


async def test_who_leaves_at_done_was_served(line):
    """As SDKs do. The engine takes its time to end the body."""
    left = asyncio.Event()
    async with (
        scripted_engine(streaming(EVENT % b"a", END, DONE, then=left)) as engine,
        running_proxy(engines=Engines(aggregated=(engine,))) as cluster,
    ):
        reader, writer = await ask(cluster.url, stream=True)
        await read_until(reader, DONE)
        writer.close()
        await over(cluster)
        left.set()
    fields = line()
    assert (fields["status"], "client_gone" in fields) == ("200", False)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_closes_behind_the_last_byte_was_served(line, stream):
    async with running_cluster() as cluster:
        reader, writer = await ask(cluster.url, stream=stream, close=True)
        async with asyncio.timeout(LIMIT_S):
            while await reader.read(65536):
                pass
        writer.close()
        await over(cluster)
    fields = line()
    assert (fields["status"], "client_gone" in fields) == ("200", False)


async def test_who_leaves_while_held_kv_is_given_back_was_answered(line):
    """The decode engine refused; the answer is out, and a leg is still open for the prefill engine's sake."""
    async with running_cluster(limits=Limits(release_grace_s=0.5)) as cluster:
        cluster.decode.faults.add(Fault(kind="status", status=400, message="no", times=1))
        cluster.decode.faults.add(Fault(kind="hang", times=1))
        reader, writer = await ask(cluster.url, stream=False, close=True)
        await read_until(reader, b"no")
        writer.close()
        await over(cluster)
    fields = line()
    assert (fields["status"], "client_gone" in fields) == ("400", False)


async def test_who_leaves_before_everything_was_handed_over_is_gone(line):
    """The engine has said everything, and more of it waits for the client than its connection takes."""
    answer, said = [EVENT % (b"x" * 60_000) for _ in range(15)], asyncio.Event()
    async with (
        scripted_engine(streaming(*answer, END, DONE, told=said)) as engine,
        running_proxy(engines=Engines(aggregated=(engine,))) as cluster,
    ):
        cluster.runtime._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections have it, too
        reader, writer = await ask(cluster.url, stream=True, receive_bytes=4096)
        await read_until(reader, b"xxx")
        async with asyncio.timeout(LIMIT_S):
            await said.wait()
        writer.transport.abort()
        await over(cluster)
    fields = line()
    assert (fields["status"], fields.get("client_gone")) == ("200", "true")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_sends_no_more_has_left_though_its_request_is_whole(line, stream):
    """What was written to it before reaches it; the rest of the answer is nobody's."""
    asked, never = asyncio.Event(), asyncio.Event()

    async def answer(request):
        asked.set()
        if stream:
            return await streaming(EVENT % b"a", then=never)(request)
        await never.wait()

    async with (
        scripted_engine(answer) as engine,
        running_proxy(engines=Engines(aggregated=(engine,))) as cluster,
    ):
        reader, writer = await ask(cluster.url, stream=stream)
        async with asyncio.timeout(LIMIT_S):
            await asked.wait()
        if stream:
            await read_until(reader, EVENT % b"a")
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            assert await reader.read() == b""
        await over(cluster)
        writer.close()
    fields = line()
    assert (fields["status"], fields.get("client_gone")) == ("200" if stream else "499", "true")
