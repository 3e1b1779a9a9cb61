"""The HTTP client of everything that is not the data path: probes, scraping, pass-through, shadow legs.

Owns how that session is made and how its errors become ours. Who makes a session closes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from ppd_proxy.core.types import Reason
from ppd_proxy.errors import EngineFailure
from ppd_proxy.upstream.shortage import OUT_OF_SOCKETS, blame

# uvicorn closes an idle connection after 5 s; a request sent at that moment would be lost.
_KEEPALIVE_TIMEOUT_S = 4.0


class _Connector(aiohttp.TCPConnector):
    """Gives out no connection on which something came while it was idle: that would be the next request's answer.
    aiohttp 3.14 itself looks for such bytes only when a connection is given back."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        for protocol, _ in self._conns.get(key, ()):
            if protocol.should_close:
                protocol.close()
        return await super()._get(key, traces)


def make_session(*, connect_timeout_s: float = 10.0, connections_per_engine: int = 100) -> aiohttp.ClientSession:
    """A session to be shared by all callers; needs a running event loop.

    There is no total timeout: an answer may take as long as the model writes. Callers that want one set their own.
    Cookies of the engines are not kept, so no client's answer depends on another's.
    """
    connector = _Connector(
        limit=0, limit_per_host=connections_per_engine, keepalive_timeout=_KEEPALIVE_TIMEOUT_S
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
    )


def engine_headers(api_key: str | None) -> dict[str, str]:
    """The headers by which an engine started with `--api-key` knows us; none without a key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


@contextmanager
def engine_errors(engine_id: str) -> Iterator[None]:
    """Turn what aiohttp and the sockets raise inside the block into an EngineFailure."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise engine_failure(engine_id, error) from error


def engine_failure(engine_id: str, error: aiohttp.ClientError | OSError) -> EngineFailure:
    """What a foreign error means to the caller: never reached (502), too late (504) or broken off (502); 503 where this
    process has no socket for it."""
    told = str(error) or type(error).__name__
    if blame(error) == "ours":
        return EngineFailure(
            f"{OUT_OF_SOCKETS} ({told})", reason=Reason.OUT_OF_SOCKETS, status=503, source="proxy"
        )  # fmt: skip
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | ConnectionRefusedError):
        return EngineFailure(f"engine {engine_id} cannot be reached: {told}", reason=Reason.ENGINE_UNREACHABLE)
    if isinstance(error, TimeoutError):
        message = f"engine {engine_id} did not answer in time"
        return EngineFailure(message, reason=Reason.ENGINE_TIMEOUT, status=504)
    return EngineFailure(f"engine {engine_id} broke off: {told}", reason=Reason.ENGINE_ERROR)
