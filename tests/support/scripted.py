"""An engine that says exactly the bytes a test wants, over a real loopback socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

from ppd_proxy.upstream.leg_request import Origin

LIMIT_S = 10.0

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
SSE_END = b"0\r\n\r\n"
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: engine\r\ncontent-length: 2\r\n\r\n"
BODY = b"{}"


def answer(status: int, body: bytes, media_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chunk(data: bytes) -> bytes:
    """A piece of an answer in chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Line:
    """The engine's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """The next whole request; raises IncompleteReadError when the connection closes instead."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        return head + await self._reader.readexactly(int(length[1]) if length else 0)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def gone(self) -> None:
        """Until the other side closes the connection."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        self._writer.transport.abort()


Talk = Callable[[Line], Awaitable[None]]


class ScriptedEngine:
    """Runs `talk` for each connection and closes it when that returns."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._running: dict[asyncio.Future[None], Line] = {}
        self.connections = 0
        self.origin = Origin("127.0.0.1", 0, False, "")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        done = asyncio.get_running_loop().create_future()
        line = self._running[done] = Line(reader, writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._talk(line)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            del self._running[done]
            done.set_result(None)

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.origin = Origin("127.0.0.1", port, False, f"127.0.0.1:{port}")
        return server

    def reset(self) -> None:
        """Break every connection off, so that a failed test ends with its own failure."""
        for line in self._running.values():
            line.reset()

    async def rest(self) -> None:
        """Until every connection is over."""
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*self._running)


@asynccontextmanager
async def scripted(talk: Talk) -> AsyncIterator[ScriptedEngine]:
    """Callers close their own connections before they leave."""
    engine = ScriptedEngine(talk)
    server = await engine.start()
    try:
        yield engine
    except BaseException:
        engine.reset()
        raise
    finally:
        server.close()
        await engine.rest()
        await server.wait_closed()


def repeat(*answers: bytes) -> Talk:
    """Answer each request on a connection with the next of `answers`, then wait for the end."""

    async def talk(line: Line) -> None:
        for each in answers:
            await line.request()
            await line.send(each)
        await line.gone()

    return talk


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until `condition` holds; for what nobody is told of."""
    async with asyncio.timeout(LIMIT_S):
        for _ in count():
            if condition():
                return
            await asyncio.sleep(0)
