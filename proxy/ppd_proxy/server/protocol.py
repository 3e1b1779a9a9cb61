"""The client's side of one connection: bytes from the socket through the guard to an ASGI application, and back.

`guarding.py` has the rules and knows no server; this adapter carries them out on an asyncio transport. uvicorn lends
the ASGI side of one request (`RequestResponseCycle`); its parser and its server are not used. Three shortcuts for the
data path go past ASGI:
- Whoever answers a request learns by its mailbox that the client left or the proxy stops, without a task that waits for
  it: the connection is in the request's scope under `SCOPE_KEY`.
- Stream chunks are written from where they arrive, as they arrived where nothing has to be taken out.
- A whole answer is one write, and so are a stream's head and first event.
Any other ASGI server does without them.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ppd_proxy.core.headers import Headers
from ppd_proxy.core.signals import ClientGone, Stopping
from ppd_proxy.errors import ProxyError
from ppd_proxy.server.guarding import Guard, Head, Limits, Phase
from ppd_proxy.server.unframed import UnframedCycle, reset
from ppd_proxy.tasks import Tasks
from ppd_proxy.upstream.mailbox import Mailbox

SCOPE_KEY = "ppd_proxy.connection"
LINGER_S = 2.0
"""How long a client that still sends is heard after its last answer: closing on unread bytes takes the answer away."""
ONE_WRITE_BYTES = 65536
"""Larger bodies are written beside their head, not copied behind it."""
_ASGI = MappingProxyType({"version": "3.0", "spec_version": "2.3"})

_Cycle: Any = RequestResponseCycle
_OldCycle: Any = UnframedCycle
App = Callable[[Any, Any, Any], Awaitable[None]]
Refuse = Callable[[bytes, ProxyError], tuple[Headers, bytes]]
"""Counts and logs a request (by its raw path, empty where that is not known) that gets no further than its connection;
gives its answer's headers and body."""

log = logging.getLogger(__name__)


class Door:
    """What all connections share: the application behind them, their limits, and who is there."""

    def __init__(
        self, app: App, limits: Limits, refuse: Refuse, on_stalled: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.app = app
        self.limits = limits
        self.refuse = refuse
        self.on_stalled = on_stalled
        self.loop = loop
        self.requests = Tasks(loop)
        self.connections: set[ClientConnection] = set()
        self.left = asyncio.Event()
        """Set whenever one of them is gone."""
        self.on_left: Callable[[], None] = lambda: None
        self.is_closing = False
        """Every answer from now on is its connection's last."""


class Outlet:
    """The transport as a request's cycle sees it: closing it waits for what the client is still sending."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class ClientConnection(asyncio.Protocol):
    transport: asyncio.Transport
    flow: FlowControl

    def __init__(self, door: Door) -> None:
        self._door = door
        self._loop = door.loop
        self._guard = Guard(door.limits, door.loop.time())
        self.mailbox: Mailbox | None = None
        """Where the request that is being answered hears of its client; the data path sets and clears it."""
        self._cycle: Any = None  # uvicorn's, whose types ask for more than it takes
        self._path = b""
        self._closes_at: float | None = None
        """The last answer is given: what still arrives is thrown away, until then at the latest."""

    # -- transport --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.flow = FlowControl(self.transport)
        self._outlet = cast("asyncio.Transport", Outlet(self.transport, self.close))
        name, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self._scope: Mapping[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "scheme": "http",
            "root_path": "",
            "server": (name[0], name[1]) if name else None,
            "client": (peer[0], peer[1]) if peer else None,
            SCOPE_KEY: self,
        }
        self._door.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        self._door.left.set()
        self._door.on_left()
        self._disconnect()
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._closes_at is None:
            self._guard.feed(data, self._loop.time())
            self._read_on()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if self._is_answered:
            self._next()

    # -- requests --

    @property
    def _is_answered(self) -> bool:
        return self._cycle is None or self._cycle.response_complete

    @property
    def is_idle(self) -> bool:
        """Nothing of a request has arrived, and all of the last answer has left."""
        return self._guard.is_idle and not self.transport.get_write_buffer_size()

    def idle_s(self, now: float) -> float:
        """For how long nothing of a request has arrived, of a connection that is idle."""
        return now - self._guard.due_at + self._door.limits.keep_alive_s

    def _read_on(self) -> None:
        guard = self._guard
        try:
            if guard.phase is Phase.HEAD:
                head = guard.head(self._loop.time())
                if head is not None:
                    self._begin(head)
            elif guard.phase is not Phase.WHOLE:
                self._pass(guard.body())
            elif guard.is_full:
                self.flow.pause_reading()
        except ProxyError as error:
            self.refuse(error)

    def _begin(self, head: Head) -> None:
        self._path = head.path
        path = head.path.decode("ascii")
        scope = {
            **self._scope,
            "http_version": head.version,
            "headers": head.headers,
            "method": head.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": head.path,
            "query_string": head.query,
        }
        kind = _Cycle if head.version == "1.1" else _OldCycle
        self._cycle = cycle = kind(
            scope=scope,
            transport=self._outlet,
            flow=self.flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=head.awaits_continue,
            keep_alive=head.keeps_alive and not self._door.is_closing,
            on_response=self._next,
        )
        self._pass(self._guard.body())
        self._door.requests.spawn(cycle.run_asgi(self._door.app))

    def _pass(self, body: bytes) -> None:
        """Hand what has arrived of the body to who answers; after an early answer the rest is only read past."""
        cycle, is_whole = self._cycle, self._guard.is_whole
        if cycle is None or cycle.response_complete:
            if is_whole:
                self._next()
            return
        if is_whole:
            cycle.more_body = False
            cycle.body = cycle.body + body if cycle.body else body  # what came at once is not copied
        else:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        cycle.message_event.set()

    def _next(self) -> None:
        """The answer is complete. One that the client has not taken yet holds its next request up."""
        if self._closes_at is not None or self.flow.write_paused:
            return
        self._guard.answered(self._loop.time())
        self.flow.resume_reading()
        if self._guard.has_more:
            self._read_on()

    # -- the end --

    def close(self) -> None:
        """No further request. Unread bytes would take the last answer away with them, so they are read first."""
        if self._closes_at is not None or self.transport.is_closing():
            return
        if isinstance(self._cycle, UnframedCycle) and self._cycle.is_cut:
            reset(self.transport.get_extra_info("socket"))
            self.transport.abort()
            return
        if self._guard.is_whole and not self._guard.has_more and not self.flow.read_paused:
            self.transport.close()
            return
        self._closes_at = self._loop.time() + LINGER_S
        self.transport.write_eof()
        self.flow.resume_reading()

    def refuse(self, error: ProxyError) -> None:
        """Answer in the application's place, and close. Nothing is added to an answer that has begun."""
        is_answered = self._is_answered and self._guard.phase is not Phase.HEAD
        is_begun = not self._is_answered and self._cycle is not None and self._cycle.response_started
        self._disconnect()
        if is_answered or is_begun:
            self.transport.abort()
            return
        headers, body = self._door.refuse(self._path, error)
        lines = b"".join([b"%b: %b\r\n" % field for field in headers])
        length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[error.status], lines, length, body)))
        self.close()

    def answer_last(self) -> None:
        """The answer that is being given is the last one."""
        if self._cycle is not None:
            self._cycle.keep_alive = False

    def break_off(self, error: ProxyError) -> None:
        """The proxy ends: what is not answered gets `error`, an answer that has begun ends with it."""
        if self._closes_at is not None or self.transport.is_closing():
            return
        if self.mailbox is not None:
            self.mailbox.put(Stopping(error))
        elif self._is_answered and (self._guard.is_idle or self._guard.is_whole):
            self.transport.close()
        else:
            self.refuse(error)

    def _disconnect(self) -> None:
        """Whoever answers a request is told that the client takes no answer any more."""
        cycle = self._cycle
        if cycle is not None:
            if not cycle.response_complete:
                cycle.disconnected = True
            cycle.message_event.set()
        if self.mailbox is not None:
            self.mailbox.put(ClientGone())

    def look(self, now: float) -> int:
        """Whether the client has had its time, to send or to read; to be asked often. Returns the bytes that it has not
        taken yet."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if self._guard.is_stalled(unsent_bytes and unsent_bytes + self._kernel_bytes(), now):
            self._door.on_stalled()
            self.transport.abort()
        elif self._closes_at is not None:
            if now >= self._closes_at and not unsent_bytes:
                self.transport.abort()
        elif now >= self._guard.due_at:
            self._expire(now)
        return unsent_bytes

    def _kernel_bytes(self) -> int:
        """What the client has not taken of the kernel's part of its answer. The kernel takes more only when a good part
        of its megabytes is free: a slow client can be at that for longer than its time."""
        with suppress(OSError):
            held = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            return int(struct.unpack("i", held)[0])
        return 0

    def _expire(self, now: float) -> None:
        if self.flow.read_paused:
            self._guard.postpone(now)
            return
        error = self._guard.late()
        if error is None:
            self.transport.close()
        else:
            self.refuse(error)


class Writer:
    """Writes one answer where `send` would, without its checks; `cycle` is the request that is answered."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @classmethod
    def of(cls, send: object) -> Writer | None:
        """The writer behind uvicorn's `send`, which is a method of the request's cycle; None on other servers, and for
        HTTP/1.0, which knows no chunks.

        Requests sent ahead share a connection, so the connection does not tell which of them is being answered.
        """
        cycle = getattr(send, "__self__", None)
        if not isinstance(cycle, RequestResponseCycle) or isinstance(cycle, UnframedCycle):
            return None
        return cls(cycle)

    @property
    def is_lost(self) -> bool:
        """The client left before it was handed the last byte of the answer."""
        return self._cycle.disconnected

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

    def write_answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """A whole answer, which ends the request. `headers` have the content length. False: the client left before."""
        cycle = self._cycle
        if cycle.disconnected:
            return False
        parts = self._head(status, headers)
        parts.append(b"\r\n")
        if len(body) <= ONE_WRITE_BYTES:
            parts.append(body)
        cycle.transport.write(b"".join(parts))
        if len(body) > ONE_WRITE_BYTES:
            cycle.transport.write(body)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True
