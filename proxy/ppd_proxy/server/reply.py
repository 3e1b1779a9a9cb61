"""One answer on a client's connection, in HTTP/1.1's own form: what the data path writes, with nothing in between.

A whole answer is one write, and so are a stream's head and first event; stream chunks are written from where they
arrive. A client of HTTP/1.0 knows no chunks: what has no length ends with its connection, and is cut off by a reset
where it ends too early.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from ppd_proxy.server.answer_heads import CONTINUE, LAST_CHUNK, answer_head
from ppd_proxy.server.flow import Flow
from ppd_proxy.server.heads import RequestHead
from ppd_proxy.server.render import error_body, error_event, error_headers
from ppd_wire.dialects.dialects import Dialect
from ppd_wire.errors import ProxyError
from ppd_wire.headers import Headers

ONE_WRITE_BYTES = 65536
"""Larger bodies are written beside their head, not copied behind it."""


class Line(Protocol):
    """The client's connection."""

    flow: Flow

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """No further request."""

    def answered(self) -> None:
        """The answer is complete."""


class ClientReply:
    """`status` is 0 until it began; `keep_alive` may be taken away until then. After the client left, nothing is
    written."""

    __slots__ = (
        "_dialect", "_flow", "_is_continue_due", "_is_headless", "_line", "_writes", "disconnected", "is_framed",
        "keep_alive", "response_complete", "status",
    )  # fmt: skip

    def __init__(self, line: Line, head: RequestHead, dialect: Dialect, *, keep_alive: bool) -> None:
        self._line = line
        self._flow = line.flow
        self._writes = line.write
        self._dialect: Dialect = dialect
        self._is_continue_due = head.awaits_continue
        self._is_headless = head.method == "HEAD"
        self.is_framed = head.version == "1.1"
        self.keep_alive = keep_alive
        self.disconnected = False
        """The client left before it was handed the last byte of the answer."""
        self.response_complete = False
        self.status = 0

    @property
    def response_started(self) -> bool:
        return self.status != 0

    @property
    def is_cut(self) -> bool:
        """Closing the connection now would make an end of what is none."""
        return not self.is_framed and self.response_started and not self.response_complete

    def go_on(self) -> None:
        """The body is wanted; some clients wait for a word before they send it."""
        if self._is_continue_due:
            self._is_continue_due = False
            self._writes(CONTINUE)

    # -- Client --

    @property
    def is_lost(self) -> bool:
        return self.disconnected

    @property
    def writer(self) -> ClientReply | None:
        return self if self.is_framed else None

    def start(self, status: int, headers: Headers, data: bytes) -> None:
        if self.disconnected:
            return
        parts = self._head(status, headers)
        if self.is_framed:
            parts += (b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(data), data, b"\r\n")
        else:
            parts += (b"\r\n", data)
        self._writes(b"".join(parts))

    def write(self, data: bytes) -> Awaitable[None] | None:
        if self._flow.write_paused and not self.disconnected:
            return self._write_later(data, is_last=False)
        self._put(data, is_last=False)
        return None

    def end(self, data: bytes) -> Awaitable[None] | None:
        if self._flow.write_paused and not self.disconnected:
            return self._write_later(data, is_last=True)
        self._put(data, is_last=True)
        return None

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if self.disconnected:
            return
        parts = self._head(status, headers)
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        if self._is_headless:
            body = b""
        if len(body) <= ONE_WRITE_BYTES:
            parts.append(body)
            self._writes(b"".join(parts))
        else:
            self._writes(b"".join(parts))
            self._writes(body)
        self._complete()

    def fail(self, error: ProxyError, headers: Headers) -> None:
        self.answer(error.status, [*error_headers(error), *headers], error_body(error, self._dialect))

    def break_off(self, before: bytes, error: ProxyError, number: int) -> Awaitable[None] | None:
        return self.end(before + error_event(error, self._dialect, number))

    # -- StreamWriter --

    @property
    def is_ready(self) -> bool:
        return not self._flow.write_paused

    def write_chunk(self, data: bytes) -> None:
        if not self.disconnected:
            self._writes(b"%x\r\n%b\r\n" % (len(data), data))

    def write_framed(self, data: bytes) -> None:
        if not self.disconnected:
            self._writes(data)

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        self.status = status
        self._is_continue_due = False
        return answer_head(status, headers, is_last=not self.keep_alive)

    async def _write_later(self, data: bytes, *, is_last: bool) -> None:
        await self._flow.drain()
        self._put(data, is_last=is_last)

    def _put(self, data: bytes, *, is_last: bool) -> None:
        if self.disconnected:
            return
        if self.is_framed:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data = framed + LAST_CHUNK if is_last else framed
        if data:
            self._writes(data)
        if is_last:
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._line.close()
        self._line.answered()
