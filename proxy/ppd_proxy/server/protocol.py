"""uvicorn's HTTP protocol with three shortcuts for the data path.

- Whoever answers a request learns that its client left by a callback, without a task that waits for it: the connection
  is in the request's scope under `SCOPE_KEY`.
- Stream chunks are written from where they arrive, as they arrived where nothing has to be taken out.
- A whole answer is one write, and so are a stream's head and first event.
Without them every chunk costs a wake-up, every request a waiting task and every answer two passes through `send`. Any
other ASGI server does without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ppd_proxy.core.headers import Headers

SCOPE_KEY = "ppd_proxy.connection"


class ClientConnection(HttpToolsProtocol):
    on_gone: Callable[[], None] | None = None
    """Called once when the connection is lost; the request that is being answered sets and clears it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[SCOPE_KEY] = self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()


class Writer:
    """Writes one answer where `send` would, without its checks; `cycle` is the request that is answered."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @classmethod
    def of(cls, send: object) -> Writer | None:
        """The writer behind uvicorn's `send`, which is a method of the request's cycle; None on other servers.

        Requests sent ahead share a connection, so the connection does not tell which of them is being answered.
        """
        cycle = getattr(send, "__self__", None)
        return cls(cycle) if isinstance(cycle, RequestResponseCycle) else None

    def start(self, status: int, headers: Headers, data: bytes) -> None:
        """The head of a chunked answer and its first piece, which is not empty."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.response_started = cycle.chunked_encoding = True
        parts = self._head(status, headers)
        parts += (b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(data), data, b"\r\n")
        cycle.transport.write(b"".join(parts))

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        parts = [STATUS_LINE[status]]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not self._cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        return parts

    @property
    def is_ready(self) -> bool:
        """The client reads fast enough: a write need not wait."""
        return not self._cycle.flow.write_paused

    def write_chunk(self, data: bytes) -> None:
        """A piece of the chunked answer that has begun, not empty."""
        self.write_framed(b"%x\r\n%b\r\n" % (len(data), data))

    def write_framed(self, data: bytes) -> None:
        """Pieces of it in HTTP's own chunked form."""
        cycle = self._cycle
        if not cycle.disconnected:
            cycle.transport.write(data)

    def write_answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer, which ends the request. `headers` have the content length."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        parts = self._head(status, headers)
        parts += (b"\r\n", body)
        cycle.transport.write(b"".join(parts))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
