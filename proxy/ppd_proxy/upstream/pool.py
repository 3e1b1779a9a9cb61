"""Kept-alive connections to engines, one stack per origin.

Unlimited in number: the engines queue, not the proxy. Idle connections are dropped before the engine does it: uvicorn
closes them after 5 s, and a request sent into that moment is lost (vllm#18472, vllm#41567).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from ppd_proxy.core.address import authority
from ppd_proxy.core.types import Reason
from ppd_proxy.errors import EngineFailure
from ppd_proxy.upstream.connection import Connection

IDLE_LIMIT_S = 4.0


@dataclass(frozen=True, slots=True)
class Origin:
    host: str
    port: int
    is_tls: bool
    authority: str
    """The `Host` header."""


@lru_cache(maxsize=4096)
def parse_origin(url: str) -> Origin:
    """The origin of an engine's base URL, which `core/fleet.py` has checked."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    return Origin(parts.hostname or "", port, is_tls, authority(url))


class Pool:
    def __init__(self, loop: asyncio.AbstractEventLoop, *, connect_timeout_s: float) -> None:
        self._loop = loop
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
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

        def on_idle(connection: Connection) -> None:
            connection.idle_since = self._loop.time()
            self._idle.setdefault(origin, []).append(connection)

        def on_lost(connection: Connection) -> None:
            self._open.discard(connection)
            stack = self._idle.get(origin)
            if stack and connection in stack:
                stack.remove(connection)

        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(on_idle, on_lost),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.is_tls else None,
                )
        except TimeoutError:
            raise EngineFailure(
                f"no connection to {origin.authority} within {self._connect_timeout_s:g} s",
                reason=Reason.ENGINE_UNREACHABLE,
                status=503,
            ) from None
        except OSError as error:
            raise EngineFailure(
                f"no connection to {origin.authority}: {error.strerror or error}",
                reason=Reason.ENGINE_UNREACHABLE,
                status=503,
            ) from None
        self._open.add(connection)
        return connection

    def _context(self) -> ssl.SSLContext:
        """Made when first needed: loading the certificates takes longer than the rest of the start."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def close_stale(self) -> None:
        """Close connections that have been idle too long; called every few seconds."""
        limit = self._loop.time() - IDLE_LIMIT_S
        for origin, stack in list(self._idle.items()):
            self._idle[origin] = [each for each in stack if each.idle_since > limit]
            for each in stack:
                if each.idle_since <= limit:
                    each.close()
            if not self._idle[origin]:
                del self._idle[origin]

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
