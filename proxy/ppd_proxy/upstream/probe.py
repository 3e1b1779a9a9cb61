"""Asks every engine at a steady pace whether it is healthy, and reports each answer as it comes.

Knows nothing of what an answer leads to: counting misses and taking engines out is the fleet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Literal

import aiohttp

from ppd_core.fleet.engine import Engine
from ppd_proxy.upstream.shortage import Shortage, blame
from ppd_shell.http import engine_headers

ProbeResult = Literal["good", "missed", "late"]
OnResult = Callable[[Engine, ProbeResult, float], None]


class Prober:
    """Probes `GET /health` of all engines, or `GET /v1/models` where an engine has no `/health`.

    `fleet_engines` is asked anew for each round. `on_result` gets the engine, how the probe ended (`good`: 2xx;
    `missed`: refused, or another status; `late`: no answer within `timeout_s`, which is cut to `interval_s`), and the
    time on the event loop's clock since which other signs of life outweigh a late answer: when the probe before this
    one began. A probe that could not be sent for want of sockets in this process has no result. The session should
    serve nothing else: whoever waits for a connection there waits for the limit of another's.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        fleet_engines: Callable[[], Iterable[Engine]],
        on_result: OnResult,
        *,
        interval_s: float,
        timeout_s: float,
        api_key: str | None,
        shortage: Shortage,
    ) -> None:
        self._session = session
        self._shortage = shortage
        self._asked_at: dict[str, float] = {}
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
        engines = tuple(self._fleet_engines())
        self._asked_at = {engine.id: self._asked_at[engine.id] for engine in engines if engine.id in self._asked_at}
        await asyncio.gather(*(self.probe(engine) for engine in engines))

    async def probe(self, engine: Engine) -> None:
        """One engine, now."""
        now = asyncio.get_running_loop().time()
        since, self._asked_at[engine.id] = self._asked_at.get(engine.id, now), now
        result: ProbeResult
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await self._status(engine, "/health")
                if status == HTTPStatus.NOT_FOUND:
                    status = await self._status(engine, "/v1/models")
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            whose = blame(error)
            if whose == "ours":
                self._shortage.note(error)
                return
            result = "late" if whose == "late" else "missed"
        else:
            result = "good" if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else "missed"
        self._on_result(engine, result, since)

    async def _status(self, engine: Engine, path: str) -> int:
        headers = self._headers if engine.is_trusted else None
        # A redirect would say something about another server.
        async with self._session.get(engine.url + path, headers=headers, allow_redirects=False) as response:
            return response.status
