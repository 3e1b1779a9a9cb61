"""How often the engines' drafts are accepted, over a sliding window of their readings.

Owns the readings of the window. Counters since each engine's start are shown too: their own `rate()` serves any window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ppd_accuracy.verdicts.speculation import figures
from ppd_core.fleet.engine import Engine
from ppd_core.fleet.readings import is_restarted
from ppd_proxy.telemetry import instruments
from ppd_proxy.telemetry.cells import counter_family, gauge_family
from ppd_wire.metrics.scraped import EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters

WINDOW_S = 300.0
_ALL_POSITIONS = "all"


class _Window:
    """One engine's readings: the newest that is `WINDOW_S` old or older, and all after it."""

    __slots__ = ("_last", "_readings", "latest")

    def __init__(self) -> None:
        self.latest: SpecCounters | None = None
        """None when the newest attempt failed: what the engine told before must not look current."""
        self._last: EngineFigures | None = None
        self._readings: deque[tuple[float, SpecCounters]] = deque()

    def take(self, told: EngineFigures, now: float) -> None:
        self.latest = told.spec
        if told.spec is not None:
            if self._last is not None and is_restarted(self._last, told):
                # The window begins anew with the engine's new life: it may draft with other settings.
                self._readings.clear()
                self._readings.append((now, SpecCounters()))
            self._last = told
            self._readings.append((now, told.spec))
        while len(self._readings) > 1 and self._readings[1][0] <= now - WINDOW_S:
            self._readings.popleft()

    def gain(self) -> SpecCounters | None:
        if len(self._readings) < 2:
            return None
        return self._readings[-1][1].since(self._readings[0][1])


class SpecTelemetry(Collector):
    """Takes readings and shows what follows. `engines` gives all engines that are read, a baseline included; readings
    of others are ignored, and engines that are no longer given are forgotten."""

    def __init__(self, registry: CollectorRegistry, engines: Callable[[], Iterable[Engine]]) -> None:
        self._engines = engines
        self._windows: dict[str, _Window] = {}
        registry.register(self)

    def scraped(self, engine_id: str, told: EngineFigures, now: float) -> None:
        """One reading, UNKNOWN if it failed; `now` is monotonic seconds."""
        known = {engine.id for engine in self._engines()}
        self._windows = {known_id: window for known_id, window in self._windows.items() if known_id in known}
        if engine_id in known and (told.spec is not None or engine_id in self._windows):
            self._windows.setdefault(engine_id, _Window()).take(told, now)

    def gain(self, engine_id: str) -> SpecCounters | None:
        """What the engine counted in the last `WINDOW_S`; None before its second reading, and where it does not
        speculate."""
        window = self._windows.get(engine_id)
        return window.gain() if window is not None else None

    def collect(self) -> Iterator[Metric]:
        length, rate = gauge_family(instruments.SPEC_LENGTH), gauge_family(instruments.SPEC_RATE)
        drafts, tokens = counter_family(instruments.SPEC_DRAFTS), counter_family(instruments.SPEC_DRAFT_TOKENS)
        accepted = counter_family(instruments.SPEC_ACCEPTED)
        known = {engine.id for engine in self._engines()}
        for engine_id, window in self._windows.items():
            if engine_id not in known:
                continue
            latest, gained = window.latest, window.gain()
            if latest is not None:
                drafts.add_metric((engine_id,), latest.drafts)
                tokens.add_metric((engine_id,), latest.draft_tokens)
                for position, count in enumerate(latest.per_position):
                    accepted.add_metric((engine_id, str(position)), count)
            told = figures(gained) if gained is not None else None
            if told is not None:
                length.add_metric((engine_id,), told.acceptance_length)
                rate.add_metric((engine_id, _ALL_POSITIONS), told.acceptance_rate)
                for position, share in enumerate(told.per_position):
                    rate.add_metric((engine_id, str(position)), share)
        return iter((drafts, tokens, accepted, length, rate))
