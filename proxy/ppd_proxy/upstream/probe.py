"""Asks every engine at a steady pace whether it is healthy, and reports each answer as it comes.

Knows nothing of what an answer leads to: counting misses and taking engines out is the fleet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus

import aiohttp

from ppd_proxy.core.types import Engine
from ppd_proxy.upstream.client import engine_headers


class Prober:
    """Probes `GET /health` of all engines, or `GET /v1/models` where an engine has no `/health`.

    `fleet_engines` is asked anew for each round. `on_result` gets the engine's id and whether it answered 2xx within
    `timeout_s`, which is cut to `interval_s`: when the next probe is due, the last one has failed.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        fleet_engines: Callable[[], Iterable[Engine]],
        on_result: Callable[[str, bool], None],
        *,
        interval_s: float,
        timeout_s: float,
        api_key: str | None,
    ) -> None:
        self._session = session
        self._fleet_engines = fleet_engines
        self._on_result = on_result
        self._interval_s = interval_s
        self._timeout_s = min(timeout_s, interval_s)
        self._headers = engine_headers(api_key)

    async def run(self) -> None:
        """Probe until cancelled: at once, then every `interval_s`, however slow single engines are."""
        while True:
            await asyncio.gather(self.probe_all(), asyncio.sleep(self._interval_s))

    async def probe_all(self) -> None:
        """One round: all engines at the same time."""
        await asyncio.gather(*(self.probe(engine) for engine in self._fleet_engines()))

    async def probe(self, engine: Engine) -> None:
        """One engine, now."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await self._status(f"{engine.url}/health")
                if status == HTTPStatus.NOT_FOUND:
                    status = await self._status(f"{engine.url}/v1/models")
        except (aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            is_healthy = False
        else:
            is_healthy = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
        self._on_result(engine.id, is_healthy)

    async def _status(self, url: str) -> int:
        # A redirect would say something about another server.
        async with self._session.get(url, headers=self._headers, allow_redirects=False) as response:
            return response.status
