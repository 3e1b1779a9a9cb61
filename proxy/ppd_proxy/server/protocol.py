"""uvicorn's HTTP protocol with two shortcuts for the data path, found in the request's scope under `SCOPE_KEY`.

- Whoever answers a request learns that its client left by a callback, without a task that waits for it.
- Stream chunks are written from where they arrive, unless the client reads too slowly.
Without them every chunk costs a wake-up and every request a waiting task. Any other ASGI server does without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SCOPE_KEY = "ppd_proxy.connection"


class ClientConnection(HttpToolsProtocol):
    on_gone: Callable[[], None] | None = None
    """Called once when the connection is lost; the request that is being answered sets and clears it."""

    def write_chunk(self, data: bytes) -> bool:
        """Write a piece of the chunked answer that has begun; False when the client reads too slowly to take it now.

        What `send` would do, without its checks: streams are most of what a proxy writes.
        """
        if self.flow.write_paused:
            return False
        if not self.cycle.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[SCOPE_KEY] = self

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", HeadHolder(transport, self.loop)))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()


class HeadHolder:
    """A transport that sends an answer's head together with what is written right after it: one system call, one
    packet. A head that nothing follows goes out at the end of the event loop's turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - everything else is the transport's
        return getattr(self._transport, name)
