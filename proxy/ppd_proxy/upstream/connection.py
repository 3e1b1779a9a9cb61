"""One upstream HTTP/1.1 connection: writes a request, parses the answer, tells a receiver.

Owns the bytes on one socket. Knows nothing of engines' answers, retries or pools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from ppd_proxy.core.types import Reason
from ppd_proxy.errors import EngineFailure

Headers = list[tuple[bytes, bytes]]


class Receiver(Protocol):
    """Called from the event loop, in this order, ending with `on_complete` or `on_failure`."""

    def on_headers(self, status: int, headers: Headers) -> None: ...

    def on_data(self, data: bytes) -> None: ...

    def on_complete(self) -> None: ...

    def on_failure(self, failure: EngineFailure, *, is_untouched: bool) -> None:
        """`is_untouched`: a reused connection ended before a byte of the answer; the engine most likely closed it
        while idle and never saw the request (uvicorn closes after 5 s)."""


class Connection(asyncio.Protocol):
    __slots__ = (
        "_headers", "_is_at_line", "_is_interim", "_is_until_eof", "_on_idle", "_on_lost", "_parser", "_receiver",
        "_requests", "_saw_answer", "_transport", "idle_since", "pass_on",
    )  # fmt: skip

    def __init__(self, on_idle: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._headers: Headers = []
        self._saw_answer = False
        self._is_interim = False
        self._is_until_eof = False
        self._requests = 0
        self._is_at_line = False
        self.idle_since = 0.0
        self.pass_on: Callable[[bytes], bool] | None = None
        """Takes whole HTTP chunks past the parser, which never sees them: between two chunks it expects the next one,
        whichever that is. Reset with each request."""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def request(self, head: bytes, body: bytes, receiver: Receiver) -> None:
        """Send one request. The connection must be open and idle."""
        transport = self._transport
        if transport is None:
            raise RuntimeError("the connection is not open")
        self._receiver = receiver
        self._saw_answer = self._is_at_line = False
        self.pass_on = None
        self._requests += 1
        transport.writelines((head, body))

    def abort(self) -> None:
        """Close now; the receiver hears nothing more. Engines take the closed connection as an abort."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        if self.is_open and self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.is_open and self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self.close()  # an answer nobody asked for
            return
        if self._is_at_line and self.pass_on is not None and self.pass_on(data):
            return
        self._saw_answer = True
        self._is_at_line = data.endswith(b"\r\n")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the engine's answer is not HTTP: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)
        if self._receiver is None:
            return
        if self._is_until_eof and exc is None:
            self.on_message_complete()
        else:
            self._fail("the engine closed the connection" if exc is None else f"connection lost: {exc}")

    def _fail(self, message: str) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            is_untouched = self._requests > 1 and not self._saw_answer
            receiver.on_failure(EngineFailure(message, reason=Reason.ENGINE_ERROR), is_untouched=is_untouched)

    # -- httptools --

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, []
        self._is_interim = self._parser.get_status_code() < 200
        if self._is_interim:
            return
        names = {name for name, _ in headers}
        self._is_until_eof = b"content-length" not in names and b"transfer-encoding" not in names
        if self._receiver is not None:
            self._receiver.on_headers(self._parser.get_status_code(), headers)

    def on_body(self, body: bytes) -> None:
        if self._receiver is not None:
            self._receiver.on_data(body)

    def on_message_complete(self) -> None:
        if self._is_interim:
            return
        if self._receiver is None:
            self.close()  # a second answer to one request: whose would the next one be?
            return
        receiver, self._receiver = self._receiver, None
        self._is_until_eof = False
        if self.is_open and self._parser.should_keep_alive():
            self.resume()
            self._on_idle(self)
        else:
            self.close()
        receiver.on_complete()
