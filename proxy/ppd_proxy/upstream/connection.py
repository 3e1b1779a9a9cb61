"""One upstream HTTP/1.1 connection: writes a request, parses the answer, tells a receiver.

Owns the bytes on one socket. Knows nothing of engines' answers, retries or pools. A byte that belongs to no request, be
it a line end, ends the connection: what stays in the parser would be the start of the next request's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Protocol, cast

import httptools

from ppd_proxy.upstream.known_head import KnownHead
from ppd_wire.errors import EngineFailure, Failure

Headers = list[tuple[bytes, bytes]]

TURN_BYTES = 131072
"""A read of so much is followed by others' turns: 15 ms for the events of a stream."""
_HEAD_END = b"\r\n\r\n"
_CHUNKED_END = _HEAD_END
_STATUS_AT = len(b"HTTP/1.1 ")


class Receiver(Protocol):
    """Called from the event loop, in this order, ending with `on_complete` or `on_failure`."""

    @property
    def heard_at(self) -> float:
        """When bytes of the answer last came, on the loop's clock; 0 before the first."""

    @property
    def is_answering(self) -> bool:
        """The answer has begun in earnest: a request that breaks off now is not sent again."""

    def on_headers(self, status: int, headers: Headers) -> None: ...

    def on_data(self, data: bytes) -> None: ...

    def on_complete(self) -> None:
        """Unless the receiver closes the connection now, the next request may get it."""

    def on_failure(self, failure: EngineFailure, *, is_untouched: bool) -> None:
        """`is_untouched`: a reused connection ended before a byte of the answer; the engine most likely closed it
        while idle and never saw the request (uvicorn closes after 5 s)."""


KNOWN_TRIES = 3
"""Heads that were learned for nothing: what differs each time is not learned any more."""
MAX_HEAD_BYTES = 65536
MAX_HEADERS = 256
"""vLLM sends five; what middleboxes add is far from either."""


class _Rest:
    """Behind the last byte that anybody wants of an answer, there is only its end."""

    is_answering = True

    def __init__(self, close: Callable[[], None], heard_at: float) -> None:
        self._close = close
        self.heard_at = heard_at

    def on_headers(self, status: int, headers: Headers) -> None: ...

    def on_data(self, data: bytes) -> None:
        self._close()

    def on_complete(self) -> None: ...

    def on_failure(self, failure: EngineFailure, *, is_untouched: bool) -> None: ...


class Connection(asyncio.Protocol):
    __slots__ = (
        "_answer_pieces", "_bodies", "_headers", "_is_at_line", "_is_chunked", "_is_interim", "_is_kept_alive",
        "_is_over", "_is_paused", "_is_resting", "_is_until_eof", "_known", "_known_tries", "_on_idle", "_on_lost",
        "_parser", "_quiet_bytes", "_receiver", "_requests", "_saw_answer", "_transport", "idle_since", "on_body",
        "pass_on",
    )  # fmt: skip

    def __init__(self, on_idle: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._headers: Headers = []
        self._known: KnownHead | None = None
        """How whole answers began here, lately."""
        self._known_tries = KNOWN_TRIES
        self._bodies: list[bytes] = []
        """Pieces of body that one read brought: a receiver's work is by the read, not by the piece."""
        self._answer_pieces = 0
        """How many of them are the answer's, once it is over."""
        self.on_body = self._bodies.append
        self._parser = httptools.HttpResponseParser(self)
        self._saw_answer = False
        self._is_interim = False
        self._is_until_eof = False
        self._is_chunked = False
        self._is_over = False
        """The answer's last byte was parsed; nothing that the parser says after it is for the receiver."""
        self._is_kept_alive = False
        self._is_paused = False
        self._is_resting = False
        self._quiet_bytes = 0
        """Read since the last byte of an answer's body, or since its request: heads, trailers, sizes of chunks."""
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
        self._saw_answer = self._is_at_line = self._is_over = False
        self._quiet_bytes = 0
        self._headers = []  # trailers of the answer before
        self.pass_on = None
        self._requests += 1
        transport.writelines((head, body))

    def abort(self) -> None:
        """Close now; the receiver hears nothing more. Engines take the closed connection as an abort."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def give_up(self, failure: EngineFailure) -> None:
        """Close now; a request that is under way has failed, and its answer is not waited for."""
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.on_failure(failure, is_untouched=False)

    @property
    def is_answering(self) -> bool:
        return self._receiver is not None and self._receiver.is_answering

    @property
    def heard_at(self) -> float:
        """When the engine last spoke here, on the loop's clock; 0 when it never did."""
        return max(self.idle_since, self._receiver.heard_at) if self._receiver is not None else self.idle_since

    def let_end(self, now: float) -> None:
        """The receiver has all it wants of the answer and hears nothing more. Once the engine has ended it, the
        connection may serve again; what comes instead of the end closes it."""
        self._receiver = _Rest(self.close, now)
        self.pass_on = None
        self.idle_since = now
        self.resume()

    @property
    def is_ending(self) -> bool:
        return isinstance(self._receiver, _Rest)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        self._is_paused = True
        self._read_or_wait()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._read_or_wait()

    def _rest(self) -> None:
        """Read on when others have had their turn: libuv reads on at once for as long as there is something, up to 32
        times, and all of it would be one step of the loop."""
        self._is_resting = True
        self._read_or_wait()
        asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._is_resting = False
        self._read_or_wait()

    def _read_or_wait(self) -> None:
        transport, reads = self._transport, not (self._is_paused or self._is_resting)
        if transport is None or not self.is_open or transport.is_reading() == reads:
            return
        if reads:
            transport.resume_reading()
        else:
            transport.pause_reading()

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self.close()  # an answer nobody asked for
            return
        if len(data) >= TURN_BYTES:
            self._rest()
        if self._is_at_line and self.pass_on is not None and self.pass_on(data):
            return
        self._is_at_line = data.endswith(b"\r\n")
        self._quiet_bytes += len(data)
        is_first, self._saw_answer = not self._saw_answer, True
        fault: Exception | None = None
        try:
            has_more = self._feed(data, is_first=is_first)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            has_more, fault = True, error
        bodies = self._bodies
        if bodies:
            self._quiet_bytes = 0
            if self._is_over:
                del bodies[self._answer_pieces :]
            body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            bodies.clear()
            try:
                if self._receiver is not None:
                    self._receiver.on_data(body)
            except Exception as error:  # noqa: BLE001 - a fault in reading one answer is that answer's
                self._fail(f"the engine's answer could not be read: {error!r}")
                self.close()
                return
        if self._is_over:
            self._end(is_reusable=not has_more)
        elif fault is not None:
            self._fail(f"the engine's answer is not HTTP: {fault}")
            self.close()
        elif self._quiet_bytes > MAX_HEAD_BYTES:
            self._fail(f"the engine sent {self._quiet_bytes} bytes of head or framing without a byte of its answer")
            self.close()

    def _feed(self, data: bytes, *, is_first: bool) -> bool:
        """Parse; whether bytes came behind the answer's end. The parser does not tell where that was: with a length it
        shows in how much of the read was body, and else the last byte goes in by itself wherever it may be the end."""
        parser = self._parser
        is_end_like = data.endswith(_CHUNKED_END)
        if self._is_chunked and len(data) >= len(_CHUNKED_END) and not is_end_like:
            parser.feed_data(data)  # the next events of a stream
            return self._is_over
        if is_first and not is_end_like and not data.startswith(b"1", _STATUS_AT):
            if self._known is not None and self._is_as_known(self._known, data):
                return False
            head_bytes = data.find(_HEAD_END) + len(_HEAD_END)
            if head_bytes >= len(_HEAD_END):
                headers = self._headers
                parser.feed_data(data)
                has_more = self._is_over and sum(map(len, self._bodies)) != len(data) - head_bytes
                if self._known_tries and self._is_over and self._is_kept_alive and not has_more:
                    self._known_tries -= 1
                    self._known = KnownHead.of(data[:head_bytes], headers)
                return has_more
        view, last = memoryview(data), len(data) - 1
        if last:
            parser.feed_data(view[:last])
            if self._is_over:
                return True
        parser.feed_data(view[last:])
        return False

    def _is_as_known(self, known: KnownHead, data: bytes) -> bool:
        """Whether it is a whole answer, and begins as the last one did; then the parser need not see it."""
        body = known.body(data)
        if body is None:
            return False
        self._known_tries = KNOWN_TRIES
        self._is_over = self._is_kept_alive = True
        self._answer_pieces = 1
        self._bodies.append(body)
        if self._receiver is not None:
            self._receiver.on_headers(200, known.headers)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._parser = _no_parser()  # the one that was here knows the connection: each would be left to the collector
        self._on_lost(self)
        if self._receiver is None:
            return
        if self._is_until_eof and exc is None:
            self._end(is_reusable=False)
        else:
            self._fail("the engine closed the connection" if exc is None else f"connection lost: {exc}")

    def _fail(self, message: str) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            is_untouched = self._requests > 1 and not self._saw_answer
            receiver.on_failure(EngineFailure(message, reason=Failure.ENGINE_ERROR), is_untouched=is_untouched)

    def _end(self, *, is_reusable: bool) -> None:
        """The answer is complete, and all that was read is parsed."""
        receiver, self._receiver = self._receiver, None
        self._is_until_eof = self._is_chunked = False
        transport = self._transport
        # An engine that answered before it had the whole request may take the rest of it for the next one.
        is_reusable = (
            is_reusable and self._is_kept_alive and transport is not None and not transport.get_write_buffer_size()
        )
        if not is_reusable and transport is not None:
            transport.abort()  # what the engine did not read of the request, it need not read any more
        if receiver is not None:
            self.idle_since = receiver.heard_at
            receiver.on_complete()
        if is_reusable and self.is_open:
            self.resume()
            self._on_idle(self)

    # -- httptools --

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, []
        if self._is_over:
            return
        self._is_interim = 100 <= self._parser.get_status_code() < 200
        if self._is_interim:
            return
        if len(headers) > MAX_HEADERS or (self._quiet_bytes > MAX_HEAD_BYTES and _size(headers) > MAX_HEAD_BYTES):
            self._fail(f"the engine's answer has a head of {len(headers)} fields and {_size(headers)} bytes")
            self.close()
            return
        self._quiet_bytes = 0
        named = dict(headers)
        self._is_chunked = b"transfer-encoding" in named
        self._is_until_eof = b"content-length" not in named and not self._is_chunked
        if self._receiver is not None:
            self._receiver.on_headers(self._parser.get_status_code(), headers)

    def on_message_complete(self) -> None:
        if not self._is_interim and not self._is_over:
            self._is_over, self._is_kept_alive = True, self._parser.should_keep_alive()
            self._answer_pieces = len(self._bodies)


@cache
def _no_parser() -> httptools.HttpResponseParser:
    return httptools.HttpResponseParser(None)


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers)
