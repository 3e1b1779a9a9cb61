"""Engines and clients without a socket: the real pool, connections and driver over transports that keep bytes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

from tests.support.parts import Parts, Remembering

from ppd_proxy.config.sections import Limits
from ppd_proxy.request.director import Director
from ppd_proxy.request.in_flight import InFlight
from ppd_proxy.request.record import Record
from ppd_proxy.request.request import Call
from ppd_proxy.request.sampling import Sampling
from ppd_proxy.upstream.pool import Pool
from ppd_shell.tasks import Tasks
from ppd_wire.errors import ProxyError

TURNS = 20
"""So many turns of the loop are enough for everything that waits for nothing."""


class Line(asyncio.Transport):
    """One connection to an engine: what was `sent` there, and what it `replies`."""

    def __init__(self, host: str, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.host = host
        self.sent = b""
        self._protocol = protocol
        self._is_closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def writelines(self, parts: Any) -> None:
        self.sent += b"".join(parts)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    resume_reading = pause_reading

    def replies(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._protocol.data_received(head.encode() + body)

    def streams(self, *events: bytes) -> None:
        """The head of a stream, and events, each in one read."""
        self._protocol.data_received(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self.goes_on(*events)

    def goes_on(self, *events: bytes) -> None:
        for event in events:
            self._protocol.data_received(b"%x\r\n%b\r\n" % (len(event), event))

    def ends(self) -> None:
        self._protocol.data_received(b"0\r\n\r\n")


class Lines:
    """In a loop's place for the pool: every connection is a `Line`, kept in order; `refuses` are hosts that refuse,
    `most` is how many may be open at once."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self.opened: list[Line] = []
        self.refuses: set[str] = set()
        self.time = asyncio.get_running_loop().time

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int, **_: Any
    ) -> tuple[Line, asyncio.Protocol]:
        if host in self.refuses:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        if sum(not line.is_closing() for line in self.opened) >= self._most:
            raise OSError(errno.EMFILE, "Too many open files")
        protocol = factory()
        line = Line(host, protocol)
        self.opened.append(line)
        protocol.connection_made(line)
        return line, protocol


class Received:
    """A client that keeps what it gets. It `is_lost` once it says so."""

    writer = None

    def __init__(self) -> None:
        self.status = 0
        self.is_lost = False
        self.is_ended = False
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.error: ProxyError | None = None

    def start(self, status: int, headers: Any, data: bytes) -> None:
        self.status, self.headers, self.body = status, dict(headers), data

    def write(self, data: bytes) -> None:
        self.body += data

    def end(self, data: bytes) -> None:
        self.body += data
        self.is_ended = True

    def answer(self, status: int, headers: Any, body: bytes) -> None:
        self.start(status, headers, body)
        self.is_ended = True

    def fail(self, error: ProxyError, headers: Any) -> None:
        self.error = error
        self.answer(error.status, headers, b"")

    def break_off(self, before: bytes, error: ProxyError, number: int) -> None:
        self.error = error
        self.end(before)


class House:
    """A director over real parts and in-memory engines. `finished` are the records, `faults` what ended requests."""

    def __init__(self, parts: Parts, limits: Limits | None = None) -> None:
        self.parts = parts
        self.lines = Lines()
        self.in_flight = InFlight(Tasks(asyncio.get_running_loop()))
        self.sink = Remembering()
        self.finished: list[Record] = []
        self.faults: list[Exception | None] = []
        pool = Pool(self.lines, connect_timeout_s=10.0)  # type: ignore[arg-type]
        self.director = Director(
            parts.reader,
            parts.serving,
            Sampling(None, lambda: 0.0),
            pool,
            self.in_flight,
            limits or Limits(),
            self.finished.append,
        )

    def serve(self, call: Call) -> tuple[Received, Any]:
        """The client, and the driver that is told what happens to it."""
        client = Received()
        return client, self.director.serve(call, client, self.faults.append)

    async def line(self, number: int) -> Line:
        """The connection of that number, once a request went out on it."""
        for _ in range(TURNS):
            if len(self.lines.opened) > number and self.lines.opened[number].sent:
                return self.lines.opened[number]
            await asyncio.sleep(0)
        raise AssertionError(f"{len(self.lines.opened)} connections, none of number {number}")


async def settled() -> None:
    """Everything that waits for nothing has happened."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
