"""Bytes of clients against two servers of one small ASGI application, without a socket: ours, and uvicorn's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.in_memory import House
from tests.support.parts import Parts
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ppd_proxy.admission.buffered import Buffered
from ppd_proxy.config.sections import Auth, Server
from ppd_proxy.request.in_flight import InFlight
from ppd_proxy.server.bodies import Bodies
from ppd_proxy.server.client_limits import ClientLimits
from ppd_proxy.server.data_path import App, DataPath
from ppd_proxy.server.protocol import ClientConnection, Door
from ppd_shell.tasks import Tasks

TURNS = 16
"""So many turns of the loop are enough for all answers that wait for nothing."""
LONG_BYTES = 600
STEP_BYTES = 97
LIMITS = ClientLimits(
    max_head_bytes=2048, keep_alive_s=60.0, head_timeout_s=60.0, body_timeout_s=60.0, write_timeout_s=60.0
)
_REFUSAL = re.compile(rb"HTTP/1\.1 ([45]\d\d) [^\r]*\r\n(?:(?!\r\n\r\n).)*connection: close\r\n.*\Z", re.DOTALL)


class Wire(asyncio.Transport):
    """The client's end: what was `written` to it, and whether it was told that no more comes. It reads at once."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._held: list[bytes] = []
        self._is_read = True
        self._is_lost = False
        self.written = b""
        self.is_ended = False
        protocol.connection_made(self)

    def sends(self, data: bytes) -> None:
        """In one piece. While the server does not read, it waits."""
        self._held.append(data)
        self._deliver()

    def sends_no_more(self) -> None:
        if not self._is_lost and not self._protocol.eof_received():
            self.close()

    @property
    def waiting(self) -> int:
        """Pieces that were sent and not read."""
        return len(self._held)

    def _deliver(self) -> None:
        while self._held and self._is_read and not self._is_lost:
            self._protocol.data_received(self._held.pop(0))

    def write(self, data: Any) -> None:
        if not self.is_ended:
            self.written += data

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_ended = True
        if not self._is_lost:
            self._is_lost = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._is_lost

    def pause_reading(self) -> None:
        self._is_read = False

    def resume_reading(self) -> None:
        self._is_read = True
        asyncio.get_running_loop().call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 9)}.get(name, default)


@dataclass(slots=True)
class Application:
    """Says what it was asked. Paths that begin with `/chunks` are answered without a length, those with `/204` and
    `/304` by that status."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        headers = tuple((name, value.strip(b" \t")) for name, value in scope["headers"])
        told = [scope[part] for part in ("http_version", "method", "path", "raw_path", "query_string")]
        self.asked.append((*told, headers, body))
        said = b"%b %b" % (scope["method"].encode(), body)
        path = scope["path"]
        status = int(path[1:4]) if path in ("/204", "/304") else 200
        fields = [(b"X-Number", b"%d" % len(self.asked))]
        if path.startswith("/chunks"):
            await send({"type": "http.response.start", "status": status, "headers": fields})
            await send({"type": "http.response.body", "body": said, "more_body": True})
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"the end", "more_body": True})
            await send({"type": "http.response.body"})
            return
        said = said if status == 200 else b""
        fields.append((b"content-length", b"%d" % len(said)))
        await send({"type": "http.response.start", "status": status, "headers": fields if said else fields[:1]})
        await send({"type": "http.response.body", "body": said})


@dataclass(frozen=True, slots=True)
class Played:
    """What the application was asked, what was answered, the refusal at the end of it (0: none), and whether the client
    was told that no more comes."""

    asked: tuple[tuple[Any, ...], ...]
    answers: bytes
    refusal: int
    is_ended: bool

    @property
    def statuses(self) -> list[int]:
        found = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) [^\r]*\r\n", self.answers)]
        return found + ([self.refusal] if self.refusal else [])


Serve = Callable[[App], Awaitable[asyncio.Protocol]]


async def ours(application: App) -> ClientConnection:
    loop = asyncio.get_running_loop()
    house, side = House(Parts()), Server()
    data_path = DataPath(
        application, house.director, Auth(), Bodies(side, Buffered(side.max_buffered_bytes)), loop.time
    )
    return ClientConnection(Door(data_path, InFlight(Tasks(loop)), LIMITS, lambda: None))


async def uvicorns(application: App) -> asyncio.Protocol:
    config = Config(application, http="httptools", ws="none", lifespan="off", access_log=False, log_config=None)
    return HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())


async def play(serve: Serve, pieces: Sequence[bytes], *, half_closes: bool = False) -> Played:
    """`half_closes`: the client sends no more as soon as all of it is sent."""
    application = Application()
    wire = Wire(await serve(application))
    for piece in pieces[:-1]:
        wire.sends(piece)
        await _turns(TURNS)
    wire.sends(pieces[-1])
    if half_closes:
        wire.sends_no_more()
    before = None
    while before != (before := (wire.written, wire.is_ended)):
        await _turns(TURNS)
    is_ended = wire.is_ended
    wire.close()
    await _turns(TURNS)
    refusal = _REFUSAL.search(wire.written) if b"x-number" not in wire.written.rpartition(b"HTTP/1.1 ")[2] else None
    answers = wire.written[: refusal.start()] if refusal else wire.written
    return Played(tuple(application.asked), answers, int(refusal[1]) if refusal else 0, is_ended)


def cuts(sent: bytes) -> Iterator[list[bytes]]:
    """At once, byte by byte, and in two pieces wherever it can be cut; what is long is cut now and then."""
    yield [sent]
    yield [sent[place : place + 1] for place in range(len(sent))] or [b""]
    for place in range(1, len(sent), STEP_BYTES if len(sent) > LONG_BYTES else 1):
        yield [sent[:place], sent[place:]]


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)
