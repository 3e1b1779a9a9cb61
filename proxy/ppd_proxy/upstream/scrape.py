"""Fetches the engines' own metrics.

Owns when each engine is asked and how long it may take. What the figures mean is for the receiver: every attempt ends
in one call of `on_figures`, with UNKNOWN where the engine did not answer as it should.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from ppd_core.fleet.engine import Engine
from ppd_shell.http import engine_headers
from ppd_wire.metrics.page import MetricsPage
from ppd_wire.metrics.scraped import UNKNOWN, EngineFigures, figures

MIN_INTERVAL_S = 1.0
_TIMER_SLACK_S = 0.01

_log = logging.getLogger(__name__)

OnFigures = Callable[[Engine, EngineFigures, float], None]


def read(page: MetricsPage) -> EngineFigures:
    """Read an engine's `/metrics` in Prometheus text format. ValueError if a line that matters is malformed."""
    samples = (sample for family in text_string_to_metric_families(page.text()) for sample in family.samples)
    return figures((sample.name, sample.labels, sample.value) for sample in samples)


class Scraper:
    """Reads `/metrics` of all engines every `interval_s`, and never one engine twice within a second.

    `engines` need not be the fleet alone: a baseline that serves no clients is given beside it, and the receiver of the
    figures tells them apart by id (`ppd_core.fleet.readings.Readings`).
    `on_figures` gets the engine, its figures and the time (the event loop's clock, seconds). The session stays the
    caller's. Engines that are down are asked too: it is cheap, and what they told last must not look current.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        engines: Callable[[], Iterable[Engine]],
        on_figures: OnFigures,
        *,
        interval_s: float,
        timeout_s: float,
        api_key: str | None,
    ) -> None:
        if interval_s <= 0:
            raise ValueError(f"interval_s is {interval_s}; it must be above 0 (to switch scraping off, do not run it)")
        self._session = session
        self._engines = engines
        self._on_figures = on_figures
        self._interval_s = max(interval_s, MIN_INTERVAL_S)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._headers = engine_headers(api_key)
        self._asked_at: dict[str, float] = {}
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Scrape until cancelled: at once, then every `interval_s`, or when the slowest engine is done."""
        while True:
            await asyncio.gather(self.scrape_all(), asyncio.sleep(self._interval_s))

    async def scrape_all(self) -> None:
        """Ask every engine once, all at the same time; those asked less than a second ago are left out."""
        now = asyncio.get_running_loop().time()
        # A timer may fire a little early; without slack a round of `run` at the shortest interval would be left out.
        least_s = MIN_INTERVAL_S - _TIMER_SLACK_S
        engines = tuple(self._engines())
        self._asked_at = {engine.id: self._asked_at[engine.id] for engine in engines if engine.id in self._asked_at}
        self._failing &= self._asked_at.keys()
        due = [engine for engine in engines if now - self._asked_at.get(engine.id, float("-inf")) >= least_s]
        self._asked_at.update((engine.id, now) for engine in due)
        await asyncio.gather(*(self._scrape(engine) for engine in due))

    async def _scrape(self, engine: Engine) -> None:
        try:
            # Python code, so the loop gets its turn every 5 ms; on the loop thousands of lines would stop it for 0.1 s.
            reading = await asyncio.to_thread(read, await self._get(engine))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            reading = UNKNOWN
            if engine.id not in self._failing:
                self._failing.add(engine.id)
                _log.warning("scrape failed engine=%s error=%r", engine.id, error)
        else:
            self._failing.discard(engine.id)
        self._on_figures(engine, reading, asyncio.get_running_loop().time())

    async def _get(self, engine: Engine) -> MetricsPage:
        """What of the answer is worth parsing. ValueError for another status than 200 and beyond any engine's size."""
        url = f"{engine.url}/metrics"
        headers = self._headers if engine.is_trusted else None
        async with self._session.get(
            url, headers=headers, timeout=self._timeout, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise ValueError(f"{url} answered {response.status}; it must be 200")
            page = MetricsPage()
            async for piece in response.content.iter_any():
                page.feed(piece)
                await asyncio.sleep(0)
        return page
