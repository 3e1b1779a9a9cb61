"""The HTTP session of everything but the data path: probes, scraping, shadow legs, the command line."""

from __future__ import annotations

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

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
