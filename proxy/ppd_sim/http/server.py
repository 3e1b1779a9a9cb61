"""The HTTP/1.1 server of the simulated engine: an `asyncio.Protocol` over httptools.

It knows nothing of engines. A handler is called once per request with an `HttpExchange`, runs as one task, and is
cancelled when the client closes the connection, as vLLM aborts a request whose client is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools
import msgspec


class Spawn(Protocol):
    """Starts a task whose failure is somebody's business."""

    def __call__(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]: ...


Handler = Callable[["HttpExchange"], Awaitable[None]]


class Connections:
    """All open connections of one server; the owner closes them. `keep_alive_s` of 0 never closes an idle one."""

    def __init__(self, handler: Handler, spawn: Spawn, *, keep_alive_s: float = 0.0) -> None:
        self.keep_alive_s = keep_alive_s
        self.handler = handler
        self.spawn = spawn
        self.open: set[SimConnection] = set()

    def __call__(self) -> asyncio.Protocol:
        return SimConnection(self)

    def abort_all(self) -> None:
        for connection in tuple(self.open):
            connection.transport.abort()


class HttpExchange:
    """One request and the way to answer it. `headers` has lower-case names."""

    def __init__(self, connection: SimConnection, method: str, target: str, headers: dict[str, str]) -> None:
        self._connection = connection
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.body = b""
        self.is_started = False
        self.is_finished = False
        self.keeps_alive = True

    def json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:  # noqa: ANN401
        self.send(status, msgspec.json.encode(value), "application/json", headers)

    def send(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """The whole answer at once."""
        head = self._head(status, content_type, headers) + f"content-length: {len(body)}\r\n\r\n".encode()
        self.is_started = self.is_finished = True
        self._connection.write(head + body)

    def json_half(self, value: Any, headers: Mapping[str, str] | None = None) -> None:  # noqa: ANN401
        """Announce the whole answer, send half of it and close."""
        body = msgspec.json.encode(value)
        head = self._head(200, "application/json", headers) + f"content-length: {len(body)}\r\n\r\n".encode()
        self.is_started = self.is_finished = True
        self._connection.write(head + body[: len(body) // 2])
        self._connection.transport.close()

    def start_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """Answer 200 with an event stream that `event` feeds."""
        self.is_started = True
        head = self._head(200, "text/event-stream; charset=utf-8", headers)
        self._connection.write(head + b"transfer-encoding: chunked\r\n\r\n")

    def event(self, data: bytes) -> None:
        """One server-sent event in one HTTP chunk."""
        self._connection.write(b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data))

    def end_stream(self) -> None:
        self.is_finished = True
        self._connection.write(b"0\r\n\r\n")

    def drop(self) -> None:
        """Close the connection without another word."""
        self.is_finished = True
        self._connection.transport.abort()

    async def drain(self) -> None:
        """Let the event loop run; wait while the client does not read."""
        await self._connection.drain()

    def _head(self, status: int, content_type: str, headers: Mapping[str, str] | None) -> bytes:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "server: sim", f"content-type: {content_type}"]
        lines.extend(f"{name}: {value}" for name, value in (headers or {}).items())
        if not self.keeps_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n").encode("latin-1")


class SimConnection(asyncio.Protocol):
    """One client connection: parses requests, runs them one after another."""

    transport: asyncio.Transport

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._pending: deque[HttpExchange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._resumed: asyncio.Event | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._owner.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.open.discard(self)
        self._pending.clear()
        self._stop_idling()
        if self._task is not None:
            self._task.cancel()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            body = b'{"error":"not HTTP"}'
            self.write(
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            self.transport.close()

    def pause_writing(self) -> None:
        self._resumed = asyncio.Event()

    def resume_writing(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        if self._resumed is not None:
            await self._resumed.wait()
        else:
            await asyncio.sleep(0)

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        exchange = HttpExchange(self, method, self._target.decode("latin-1"), self._headers)
        exchange.body = b"".join(self._body)
        exchange.keeps_alive = self._parser.should_keep_alive()
        self._pending.append(exchange)
        self._stop_idling()
        if self._task is None:
            self._task = self._owner.spawn(self._run())

    async def _run(self) -> None:
        is_sound = False
        try:
            while self._pending:
                exchange = self._pending.popleft()
                await self._owner.handler(exchange)
                if not exchange.is_finished or not exchange.keeps_alive:
                    return
            is_sound = True
        finally:
            self._task = None
            if not is_sound:
                self.transport.close()
        if self._owner.keep_alive_s:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._owner.keep_alive_s, self.transport.close)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
