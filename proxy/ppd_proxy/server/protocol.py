"""uvicorn's HTTP protocol with three shortcuts for the data path.

- Whoever answers a request learns that its client left by a callback, without a task that waits for it: the connection
  is in the request's scope under `SCOPE_KEY`.
- Stream chunks are written from where they arrive, unless the client reads too slowly.
- A whole answer is one write.
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

    def write_chunk(self, data: bytes) -> bool:
        """A piece of the chunked answer that has begun, not empty; False when the client reads too slowly to take it
        now."""
        cycle = self._cycle
        if cycle.flow.write_paused:
            return False
        if not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def write_answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer, which ends the request. `headers` have the content length."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        parts = [STATUS_LINE[status]]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
        cycle.transport.write(b"".join(parts))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
