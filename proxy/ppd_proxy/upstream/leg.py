"""One leg: turns what a connection receives into events of an exchange.

Whole answers are buffered; a stream's bytes go through a `Relay` into `out`, where the driver takes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

import msgspec

from ppd_proxy.upstream.connection import Connection
from ppd_proxy.upstream.events import FirstByte, LegEnded, LegEvent, LegFailed, LegKind
from ppd_proxy.upstream.leg_request import LegRequest
from ppd_proxy.upstream.pool import Pool
from ppd_wire.answers.answer import EngineAnswer, is_too_long
from ppd_wire.dialects.dialects import BrokenAnswer, HandedOver, read_prefill, read_whole
from ppd_wire.dialects.relay import Relay
from ppd_wire.errors import EngineFailure, Failure
from ppd_wire.headers import Headers, find

HIGH_WATER_BYTES = 1024 * 1024
"""Unsent stream bytes above which the engine is not read further: a slow client must not fill the proxy's memory."""

SPARED_BYTES = 256
"""Larger request bodies are let go of once their answer has begun: it may go on for minutes."""
SMALL_BYTES = 65536
"""Whole answers up to here are acted upon in the same turn of the loop."""
_STRANGE = "the engine sent the answer to another request: its id is not the one that was sent"


class Inbox(Protocol):
    """Where a request hears of what happens to it."""

    def put(self, event: LegEvent) -> None: ...

    def put_last(self, event: LegEvent) -> None:
        """As `put`, by somebody who has nothing more to do: it may be looked at before the call returns."""

    def wake(self) -> None:
        """Bytes to relay, or a request to send again."""


class StreamWriter(Protocol):
    """The client's side of a chunked answer that has begun."""

    @property
    def is_ready(self) -> bool:
        """The client reads fast enough: a write need not wait."""

    def write_chunk(self, data: bytes) -> None:
        """A piece of the answer, not empty."""

    def write_framed(self, data: bytes) -> None:
        """Pieces of the answer in HTTP's own chunked form."""


class Leg:
    """`status`, `headers` and `body` of the answer, or `out` of a stream. Posts FirstByte, LegEnded and LegFailed.

    An answer has the status 200 and is what was asked for, in the request's dialect; the errors of engines have 4xx or
    5xx. Everything else is a failure of the engine.
    """

    __slots__ = (
        "_connection", "_held_bytes", "_inbox", "_is_retriable", "_loop", "_out_bytes", "_parts", "_pool", "_request",
        "answer", "body", "first_token_at", "headers", "heard_at", "is_over", "is_stream", "kind", "last_token_at",
        "needs_reopen", "opened_at", "out", "prefilled", "relay", "status", "writer",
    )  # fmt: skip

    def __init__(
        self, kind: LegKind, request: LegRequest, inbox: Inbox, loop: asyncio.AbstractEventLoop, pool: Pool
    ) -> None:
        self.kind = kind
        self._request = request
        self._inbox = inbox
        self._loop = loop
        self._pool = pool
        self.relay = request.relay
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.answer: EngineAnswer | None = None
        """What a whole answer said, as far as it can be read ..."""
        self.prefilled: HandedOver | None = None
        """... and of a prefill leg, what it hands over."""
        self.out: list[bytes] = []
        self.opened_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        """When content last came: keep-alive comments and bytes of an unfinished event are none."""
        self.heard_at = 0.0
        self._parts: list[bytes] = []
        self._out_bytes = 0
        self._held_bytes = 0
        """What of the answer counts as buffered."""
        self.is_stream = False
        self.is_over = False
        self._is_retriable = request.is_retriable
        self.needs_reopen = False
        self.writer: StreamWriter | None = None
        """Set by `begin` once the client's answer began, and taken away while something else has to go first."""
        self._connection: Connection | None = None

    def open(self) -> Awaitable[None] | None:
        """Send the request; to be awaited unless it is None. A failure to connect is posted, not raised."""
        request = self._request
        connection = None if request.is_fresh else self._pool.take(request.origin)
        if connection is None:
            return self.reopen()
        self._send(connection)
        return None

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        self.opened_at = self._loop.time()
        connection.request(self._request.head, self._request.body, self)

    def abort(self) -> None:
        self.is_over = True
        self.writer = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def take(self) -> bytes:
        """The stream bytes that wait for the client."""
        data = self.out[0] if len(self.out) == 1 else b"".join(self.out)
        self.out.clear()
        if self._out_bytes > HIGH_WATER_BYTES and self._connection is not None:
            self.last_token_at = self.heard_at = self._loop.time()  # the silence was ours
            self._connection.resume()
        self._free(self._out_bytes)
        self._out_bytes = 0
        return data

    def close(self) -> None:
        """Nobody needs the answer any more."""
        if not self.is_over:
            self.abort()
        if self._held_bytes:
            self._free(self._held_bytes)

    def _count(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        self._pool.buffered.hold(size_bytes)

    def _free(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        self._pool.buffered.free(size_bytes)

    @property
    def has_all(self) -> bool:
        """The stream's answer is complete, though its end may not have come."""
        return self.relay is not None and self.relay.is_done

    @property
    def has_said_error(self) -> bool:
        """The engine's own error event is in the stream."""
        return self.relay is not None and self.relay.error is not None

    @property
    def next_number(self) -> int:
        """Of the stream's next event, in dialects that number them."""
        return self.relay.next_number if self.relay is not None else 0

    # -- Receiver --

    @property
    def is_answering(self) -> bool:
        return self.first_token_at is not None

    def on_headers(self, status: int, headers: Headers) -> None:
        self.heard_at = self._loop.time()
        self.status = status
        self.headers = headers
        if status != 200:
            if not 400 <= status <= 599:
                self._refuse(f"the engine answered with status {status}")
            return
        is_stream = (find(headers, b"content-type") or b"").lower().startswith(b"text/event-stream")
        self.is_stream = self.relay is not None
        if is_stream != self.is_stream:
            self._refuse(f"the engine answered {'with' if is_stream else 'without'} a stream")

    def on_data(self, data: bytes) -> None:
        relay = self.relay
        now = self.heard_at = self._loop.time()
        if not self.is_stream or relay is None:
            self._parts.append(data)
            if len(self._parts) == 1 and len(data) <= self._pool.max_answer_bytes:
                return  # most answers come in one read, and are gone before the next
            self._count(len(data) if self._held_bytes else sum(map(len, self._parts)))
            if self._held_bytes > self._pool.max_answer_bytes:
                self.abort()
                self._fail(f"the engine's answer has more than {self._pool.max_answer_bytes} bytes")
            return
        if self.first_token_at is None:
            self._parts.append(data)
        shown = relay.feed(data)
        if relay.is_decisive and self.first_token_at is None and not self._is_ours(b"".join(self._parts)):
            self.abort()
            self._fail(_STRANGE)
            return
        if relay.is_over:
            self._finish(relay, shown)
            return
        if not relay.is_decisive:
            return
        if self.first_token_at is None:
            self.first_token_at = self.last_token_at = now
            self._parts.clear()
            if len(self._request.body) > SPARED_BYTES:
                self._request = msgspec.structs.replace(self._request, body=b"")  # it will not be sent again
            self._hold(shown)
            self._inbox.put(FirstByte())
            return
        if _has_event(shown):
            self.last_token_at = now
        if shown:
            if self.writer is not None and self.writer.is_ready and not self.out:
                self.writer.write_chunk(shown)
            else:
                self._hold(shown)
                self._inbox.wake()

    def _finish(self, relay: Relay, shown: bytes) -> None:
        """The relay has all that the client gets of the stream; what the engine says from now on is of no use."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if relay.is_done and not relay.has_more:
                connection.let_end(self.heard_at)
            else:
                connection.abort()
        if not relay.is_decisive:
            if relay.error is not None:
                self._end_with_error(relay.error, relay.error_status)
            else:
                self._fail(relay.broken or "the engine ended the stream without any content")
            return
        self.last_token_at = self.heard_at
        self.out.append(shown)
        if self.first_token_at is None:
            self.first_token_at = self.last_token_at
            self._inbox.put(FirstByte())
        if relay.is_done:
            self._end(LegEnded(status=self.status))
        else:
            self._fail(relay.broken or "the engine sent an error in the middle of its answer")

    def begin(self, writer: StreamWriter) -> None:
        """The client's answer has begun: from now on stream bytes go straight to it where nothing is in the way."""
        self.writer = writer
        if self._connection is not None:
            self._connection.pass_on = self._pass_on

    def _pass_on(self, data: bytes) -> bool:
        """One ordinary chunk from engine to client as it is, framing included."""
        writer, relay = self.writer, self.relay
        if writer is None or relay is None or self.out or not writer.is_ready or not relay.takes_chunk(data):
            return False
        self.last_token_at = self.heard_at = self._loop.time()
        writer.write_framed(data)
        return True

    def _hold(self, data: bytes) -> None:
        """Keep stream bytes for the driver; a client that reads too slowly holds the engine up."""
        self.out.append(data)
        self._out_bytes += len(data)
        self._count(len(data))
        if self._out_bytes > HIGH_WATER_BYTES and self._connection is not None:
            self._connection.pause()

    def on_complete(self) -> None:
        connection, self._connection = self._connection, None
        if self.is_over:
            return
        relay = self.relay
        if self.is_stream and relay is not None:
            if not relay.is_decisive:
                self._fail("the engine ended the stream without any content")
            elif relay.is_done:
                self._end(LegEnded(status=self.status))
            else:
                self._fail("the engine ended the stream before its answer was complete")
            return
        self.body = b"".join(self._parts)
        if self.status == 200:
            try:
                if self.kind == "prefill":
                    self.prefilled = read_prefill(self.body)
                else:
                    self.answer = read_whole(self._request.dialect, self.body, self._request.asked)
            except BrokenAnswer as broken:
                self._fail(str(broken))
                return
            if not self._is_ours(self.body):
                if connection is not None:
                    connection.close()  # the answer to this request may still come
                self._fail(_STRANGE)
                return
        is_client_fault = self.status == 500 and is_too_long(self.body)
        ended = LegEnded(status=self.status, is_client_fault=is_client_fault)
        if len(self.body) > SMALL_BYTES:
            self._end(ended)  # others have their turn before it is read once more
        else:
            self.is_over = True
            self._inbox.put_last(ended)

    def on_failure(self, failure: EngineFailure, *, is_untouched: bool) -> None:
        self._connection = None
        if self.is_over:
            return
        if is_untouched and self._is_retriable:
            self._is_retriable = False
            self.needs_reopen = True
            self._inbox.wake()
            return
        self._end(LegFailed(error=failure))

    async def reopen(self) -> None:
        """Send the request on a new connection."""
        self.needs_reopen = False
        if self.is_over:
            return
        try:
            connection = await self._pool.connect(self._request.origin)
        except EngineFailure as failure:
            self._end(LegFailed(error=failure, was_sent=False))
        else:
            self._send(connection)

    def _end_with_error(self, body: bytes, status: int) -> None:
        """An error event before any content: the stream becomes the plain answer it should have been."""
        self.status = status
        self.headers = [(b"content-type", b"application/json")]
        self.body = body
        self.is_stream = False
        self._end(LegEnded(status=status, is_client_fault=status == 500 and is_too_long(body)))

    def _is_ours(self, answer: bytes) -> bool:
        expected = self._request.expected
        return expected is None or expected.is_met(answer)

    def _refuse(self, message: str) -> None:
        """What comes of the answer is of no use, and might never end."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._fail(message)

    def _fail(self, message: str) -> None:
        self._end(LegFailed(error=EngineFailure(message, reason=Failure.ENGINE_ERROR)))

    def _end(self, event: LegEnded | LegFailed) -> None:
        self.is_over = True
        self._inbox.put(event)


def _has_event(shown: bytes) -> bool:
    """Whether there is an event in it, not only comments or the beginning of one."""
    return shown.startswith(b"data:") or b"\ndata:" in shown
