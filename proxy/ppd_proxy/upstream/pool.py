"""Kept-alive connections to engines, one stack per origin.

Unlimited in number: the engines queue, not the proxy. Idle connections are dropped before the engine does it: uvicorn
closes them after 5 s, and a request sent into that moment is lost (vllm#18472, vllm#41567).
"""

from __future__ import annotations

import asyncio
import ssl

from ppd_proxy.admission.buffered import Buffered
from ppd_proxy.upstream.connection import Connection
from ppd_proxy.upstream.leg_request import Origin
from ppd_proxy.upstream.shortage import OUT_OF_SOCKETS, Shortage, blame
from ppd_wire.errors import EngineFailure, Failure

IDLE_LIMIT_S = 4.0
HEARD_KEPT_S = 600.0
FREED_AT_ONCE = 64
"""Idle connections that are closed where a socket is needed and there are no more."""
FREED_TURNS = 3


class Pool:
    """`buffered` counts what legs hold of answers, of which none may have more than `max_answer_bytes` at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        connect_timeout_s: float,
        buffered: Buffered | None = None,
        max_answer_bytes: int = 1 << 62,
    ) -> None:
        self.buffered = buffered if buffered is not None else Buffered(1 << 62)
        self.max_answer_bytes = max_answer_bytes
        self._loop = loop
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: dict[Connection, Origin] = {}
        self._heard: dict[Origin, float] = {}
        """When engines last spoke on connections that are closed, for as long as that may matter."""
        self._shortage = Shortage(loop.time)
        self._tls: ssl.SSLContext | None = None

    def take(self, origin: Origin) -> Connection | None:
        """The idle connection used last, if it is still fresh."""
        stack = self._idle.get(origin)
        now = self._loop.time()
        while stack:
            connection = stack.pop()
            if connection.is_open and now - connection.idle_since < IDLE_LIMIT_S:
                return connection
            connection.close()
        return None

    async def connect(self, origin: Origin) -> Connection:
        """A new connection; raises EngineFailure when the engine cannot be reached in time."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                try:
                    connection = await self._connect(origin)
                except OSError as error:
                    if blame(error) != "ours" or not await self._free_idle():
                        raise
                    connection = await self._connect(origin)
        except OSError as error:  # TimeoutError is one
            raise self._failure(origin, error) from None
        self._open[connection] = origin
        return connection

    async def _connect(self, origin: Origin) -> Connection:
        _, connection = await self._loop.create_connection(
            lambda: Connection(self._on_idle, self._on_lost),
            origin.host,
            origin.port,
            ssl=self._context() if origin.is_tls else None,
        )
        return connection

    async def _free_idle(self) -> bool:
        """Close idle connections, as this process has no more sockets for those that are needed; whether there were
        any."""
        idle = [each for stack in self._idle.values() for each in stack][:FREED_AT_ONCE]
        for each in idle:
            each.abort()
        for _ in range(FREED_TURNS):  # until the sockets are closed
            await asyncio.sleep(0)
        return bool(idle)

    def _on_idle(self, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        origin = self._open.get(connection)
        if origin is not None:
            self._idle.setdefault(origin, []).append(connection)

    def _on_lost(self, connection: Connection) -> None:
        origin = self._open.pop(connection, None)
        if origin is None:
            return
        self._heard[origin] = max(self._heard.get(origin, 0.0), connection.heard_at)
        stack = self._idle.get(origin)
        if stack and connection in stack:
            stack.remove(connection)

    def _failure(self, origin: Origin, error: OSError) -> EngineFailure:
        whose = blame(error)
        if whose == "ours":
            self._shortage.note(error)
            return EngineFailure(
                f"{OUT_OF_SOCKETS} ({error.strerror or error})",
                reason=Failure.OUT_OF_SOCKETS, status=503, source="proxy",
            )  # fmt: skip
        is_ours = isinstance(error, TimeoutError) and error.errno is None
        told = f" within {self._connect_timeout_s:g} s" if is_ours else f": {error.strerror or error}"
        return EngineFailure(
            f"no connection to {origin.authority}{told}",
            reason=Failure.ENGINE_UNREACHABLE, status=503, is_late=whose == "late",
        )  # fmt: skip

    def heard_at(self, origin: Origin) -> float:
        """When the last bytes of an answer came from there, on the loop's clock; 0 if that is not known."""
        heard = (each.heard_at for each, at in self._open.items() if at == origin)
        return max((self._heard.get(origin, 0.0), *heard))

    def give_up(self, origin: Origin, failure: EngineFailure, *, silent_since: float) -> None:
        """Break off what waits at an engine that was found dead: requests whose answer has not begun, and streams that
        have been silent since `silent_since` (loop's clock)."""
        for connection, at in tuple(self._open.items()):
            if at == origin and (not connection.is_answering or connection.heard_at < silent_since):
                connection.give_up(failure)

    def _context(self) -> ssl.SSLContext:
        """Made when first needed: loading the certificates takes longer than the rest of the start."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def close_stale(self) -> None:
        """Close connections that have been idle too long, or wait too long for the end of an answer that nobody reads
        any more; called every few seconds."""
        limit = self._loop.time() - IDLE_LIMIT_S
        for each in list(self._open):
            if each.is_ending and each.idle_since <= limit:
                each.close()
        for origin, stack in list(self._idle.items()):
            self._idle[origin] = [each for each in stack if each.idle_since > limit]
            for each in stack:
                if each.idle_since <= limit:
                    each.close()
            if not self._idle[origin]:
                del self._idle[origin]
        for origin, heard_at in list(self._heard.items()):
            if heard_at < limit - HEARD_KEPT_S:
                del self._heard[origin]

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
