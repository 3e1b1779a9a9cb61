"""The client's side of one connection: bytes from the socket through the guard to whoever answers, and back.

`guarding.py` has the rules and knows no server; this adapter carries them out on an asyncio transport. Generation
endpoints are answered by the data path, without ASGI, all others by an ASGI application behind a `Bridge`.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import unquote

from ppd_proxy.request.in_flight import InFlight
from ppd_proxy.server.answer_heads import answer_head
from ppd_proxy.server.bridge import Bridge
from ppd_proxy.server.client_limits import ClientLimits
from ppd_proxy.server.data_path import GENERATION_PATHS, DataPath, ServedGeneration
from ppd_proxy.server.flow import HIGH_WATER_BYTES, Flow
from ppd_proxy.server.guarding import ClientGuard, ReadPhase
from ppd_proxy.server.heads import RequestHead
from ppd_proxy.server.reply import ClientReply
from ppd_wire.errors import ProxyError

LINGER_S = 2.0
"""How long a client that still sends is heard after its last answer: closing on unread bytes takes the answer away."""
_ASGI = MappingProxyType({"version": "3.0", "spec_version": "2.3"})
_HEAD, _WHOLE = ReadPhase.HEAD, ReadPhase.WHOLE
_GENERATION_PATHS = MappingProxyType({path.encode(): path for path in GENERATION_PATHS})
"""As they mostly come; whoever writes them with escapes means the same."""
_RESET = struct.pack("ii", 1, 0)
"""As SO_LINGER: closing the connection resets it, so that a client without chunks takes no part for the whole."""


class Door:
    """What all connections share: who answers behind them, their limits, and who is there."""

    def __init__(
        self, data_path: DataPath, in_flight: InFlight, limits: ClientLimits, on_stalled: Callable[[], None]
    ) -> None:
        self.data_path = data_path
        self.requests = in_flight
        self.limits = limits
        self.on_stalled = on_stalled
        self.loop = in_flight.tasks.loop
        self.connections: set[ClientConnection] = set()
        self.left = asyncio.Event()
        """Set whenever one of them is gone."""
        self.on_left: Callable[[], None] = lambda: None
        self.is_closing = False
        """Every answer from now on is its connection's last."""


class ClientConnection(asyncio.Protocol):
    __slots__ = (
        "_answer", "_closes_at", "_door", "_generation", "_guard", "_loop", "_path", "_scope", "flow", "transport",
        "write",
    )  # fmt: skip

    transport: asyncio.Transport
    flow: Flow
    write: Callable[[bytes], None]

    def __init__(self, door: Door) -> None:
        self._door = door
        self._loop = door.loop
        self._guard = ClientGuard(door.limits, door.loop.time())
        self._generation: ServedGeneration | None = None
        """The request that is being answered, if that is the data path's ..."""
        self._answer: ClientReply | Bridge | None = None
        """... and its answer."""
        self._path = b""
        self._closes_at: float | None = None
        """The last answer is given: what still arrives is thrown away, until then at the latest."""

    # -- transport --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.flow = Flow(self.transport)
        self.write = self.transport.write  # as it is: every piece of a stream goes by here
        name, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self._scope: Mapping[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "scheme": "http",
            "root_path": "",
            "server": (name[0], name[1]) if name else None,
            "client": (peer[0], peer[1]) if peer else None,
        }
        self._door.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        self._door.left.set()
        self._door.on_left()
        self._disconnect()
        self.flow.resume_writing()
        self._answer = self._generation = None  # they know the connection: each would be left to the collector

    def eof_received(self) -> None:
        """Who sends no more has left, behind a whole request too: docs/design/request.md says why. What was written to
        it before still leaves; then the transport closes."""
        self._disconnect()

    def data_received(self, data: bytes) -> None:
        if self._closes_at is None:
            now = self._loop.time()
            self._guard.feed(data, now)
            self._read_on(now)

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self._next()

    # -- requests --

    @property
    def _is_answered(self) -> bool:
        return self._answer is None or self._answer.response_complete

    @property
    def is_idle(self) -> bool:
        """Nothing of a request has arrived, and all of the last answer has left."""
        return self._guard.is_idle and not self.transport.get_write_buffer_size()

    def idle_s(self, now: float) -> float:
        """For how long nothing of a request has arrived, of a connection that is idle."""
        return now - self._guard.due_at + self._door.limits.keep_alive_s

    def _read_on(self, now: float) -> None:
        guard = self._guard
        phase = guard.phase
        try:
            if phase is _HEAD:
                head = guard.head(now)
                if head is not None:
                    self._begin(head)
            elif phase is not _WHOLE:
                self._pass(guard.body())
            elif guard.is_full:
                self.flow.pause_reading()
        except ProxyError as error:
            self.refuse(error)

    def _begin(self, head: RequestHead) -> None:
        self._path = head.path
        path = _GENERATION_PATHS.get(head.path) or _plain(head.path)
        keep_alive = head.keeps_alive and not self._door.is_closing
        dialect = GENERATION_PATHS.get(path)
        if dialect is not None:
            self._generation = None
            self._answer = reply = ClientReply(self, head, dialect, keep_alive=keep_alive)
            body = self._guard.body()  # what is wrong with it is told before anything else
            self._generation = self._door.data_path.begin(path, head, reply, self._forget)
            self._pass(body)
            return
        self._generation = None
        self._answer = bridge = Bridge(self, head, path, self._scope, keep_alive=keep_alive)
        self._pass(self._guard.body())
        self._door.requests.tasks.spawn(bridge.run(self._door.data_path))

    def _pass(self, body: bytes) -> None:
        """Hand what has arrived of the body to who answers; after an early answer the rest is only read past."""
        answer, is_whole = self._answer, self._guard.is_whole
        if answer is None or answer.response_complete:
            if is_whole:
                self._next()
        elif self._generation is not None:
            self._generation.feed(body, is_whole=is_whole)
            if not is_whole and len(body) >= HIGH_WATER_BYTES:
                self._rest()
        elif isinstance(answer, Bridge):
            answer.feed(body, is_whole=is_whole)

    def _rest(self) -> None:
        """Read on when others have had their turn: libuv reads up to 32 times at once, and all of it would be one step
        of the loop."""
        self.flow.pause_reading()
        self._loop.call_soon(self._read_again)

    def _read_again(self) -> None:
        if not self.transport.is_closing() and not self._guard.is_full:
            self.flow.resume_reading()

    def answered(self) -> None:
        if self._guard.has_more:
            self._loop.call_soon(self._next)  # refusals of what was sent ahead would go deeper and deeper
        else:
            self._next()

    def _forget(self, generation: ServedGeneration) -> None:
        """Nothing of it is left; a stream that nobody ends any more is cut off."""
        if generation is not self._generation:
            return  # this one gave KV back behind its answer
        self._generation = None
        if not generation.reply.response_complete:
            self.close()

    def _next(self) -> None:
        """Go on to the next request, if the answer is complete. One that the client has not taken yet holds that up."""
        answer, flow = self._answer, self.flow
        if flow.write_paused or (answer is not None and not answer.response_complete):
            return  # another call came first: the next request is being answered already
        if self._closes_at is not None or self.transport.is_closing():
            return
        now = self._loop.time()
        self._guard.answered(now)
        if flow.read_paused:
            flow.resume_reading()
        if self._guard.has_more:
            self._read_on(now)

    # -- the end --

    def close(self) -> None:
        """No further request. Unread bytes would take the last answer away with them, so they are read first."""
        if self._closes_at is not None or self.transport.is_closing():
            return
        if self._answer is not None and self._answer.is_cut:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
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
        is_answered = self._is_answered and self._guard.phase is not _HEAD
        is_begun = not self._is_answered and self._answer is not None and self._answer.response_started
        self._disconnect()
        if is_answered or is_begun:
            self.transport.abort()
            return
        headers, body = self._door.data_path.refuse(self._path, error)
        head = answer_head(error.status, [*headers, (b"content-length", b"%d" % len(body))], is_last=True)
        self.transport.write(b"".join((*head, b"\r\n", body)))
        self.close()

    def answer_last(self) -> None:
        """The answer that is being given is the last one."""
        if self._answer is not None:
            self._answer.keep_alive = False

    def break_off(self, error: ProxyError) -> None:
        """The proxy ends: what is not answered gets `error`, an answer that has begun ends with it."""
        if self._closes_at is not None or self.transport.is_closing():
            return
        if self._generation is not None and self._generation.driver is not None:
            self._generation.driver.break_off(error)
        elif self._is_answered and (self._guard.is_idle or self._guard.is_whole):
            self.transport.close()
        else:
            self.refuse(error)

    def _disconnect(self) -> None:
        """Whoever answers a request is told that the client takes no answer any more."""
        if self._generation is not None:
            self._generation.client_left()
        elif isinstance(self._answer, Bridge):
            self._answer.client_left()

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


def _plain(path: bytes) -> str:
    return unquote(path.decode("ascii"))
