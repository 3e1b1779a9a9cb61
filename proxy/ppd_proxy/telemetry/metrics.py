"""The proxy's own metrics: what happened to requests, KV handoffs and engines, and what is known of the engines.

Owns the counters and histograms on an injected registry. Gauges are read from the fleet, the readings, the loads and
the conversation store when someone asks for the metrics, so they cost nothing per request. Everything here, reading the
registry included, runs on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ppd_core.fleet.engine import Engine
from ppd_core.fleet.fleet import Change
from ppd_core.fleet.readings import Readings
from ppd_proxy.core.record import Record
from ppd_proxy.telemetry import instruments
from ppd_proxy.telemetry.cells import Counters, Histograms, counter_family, gauge_family
from ppd_proxy.telemetry.engines import EngineTelemetry
from ppd_proxy.telemetry.labels import Bounded, turn_label
from ppd_proxy.telemetry.speculation import SpecTelemetry

_MAX_REJECTION_REASONS = 16


class Metrics:
    """Counts what the director and the runtime report.

    `engines` gives all known engines, `inflight` requests in flight by engine id (an absent engine has none),
    `conversations` how many are remembered, `echoes_ids` whether an engine is known to echo ids. `buffered_bytes` is
    what the proxy holds of requests and answers, `dropped_log_lines` how many were dropped so far.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        readings: Readings,
        engines: Callable[[], Iterable[Engine]],
        inflight: Callable[[], Mapping[str, int]],
        conversations: Callable[[], int],
        echoes_ids: Callable[[Engine], bool | None] = lambda _: None,
        buffered_bytes: Callable[[], int] = int,
        dropped_log_lines: Callable[[], int] = int,
    ) -> None:
        self._requests = Counters(registry, instruments.REQUESTS)
        self._decisions = Counters(registry, instruments.DECISIONS)
        self._retries = Counters(registry, instruments.RETRIES)
        self._prompt_checks = Counters(registry, instruments.PROMPT_CHECKS)
        self._kv_released = Counters(registry, instruments.KV_RELEASED)
        self._kv_stranded = Counters(registry, instruments.KV_STRANDED)
        self._engine_changes = Counters(registry, instruments.ENGINE_CHANGES)
        self._clients_stalled = Counters(registry, instruments.CLIENTS_STALLED)
        self._rejected = Counters(registry, instruments.ANNOUNCEMENTS_REJECTED)
        self._first_token = Histograms(registry, instruments.FIRST_TOKEN)
        self._inter_token = Histograms(registry, instruments.INTER_TOKEN)
        self._request = Histograms(registry, instruments.REQUEST)
        self._rejection_reason = Bounded(_MAX_REJECTION_REASONS)
        EngineTelemetry(registry, readings)
        SpecTelemetry(registry, readings)
        registry.register(LiveGauges(engines, inflight, conversations, buffered_bytes, echoes_ids))
        registry.register(DroppedLines(dropped_log_lines))

    def decided(self, mode: str, route: str, reason: str) -> None:
        """One routing decision, or one refusal before routing (route `none`)."""
        self._decisions.add((mode, route, reason))

    def finished(self, record: Record) -> None:
        """Everything a finished request tells."""
        route = record.route
        self._requests.add((route, str(record.status)))
        received_at = record.received_at
        if record.ended_at is not None:
            self._request.observe((route,), record.ended_at - received_at)
        first_at = record.first_token_at
        if first_at is not None and record.is_stream:
            self._first_token.observe((route, turn_label(record.turn)), first_at - received_at)
            tokens = record.completion_tokens
            if record.last_token_at is not None and tokens is not None and tokens > 1:
                self._inter_token.observe((route,), (record.last_token_at - first_at) / (tokens - 1))

    def retried(self, *, is_allowed: bool) -> None:
        """A failed request is tried again, or is not because of too many others."""
        self._retries.add(("made" if is_allowed else "refused",))

    def prompts_compared(self, result: str) -> None:
        """The prompt token counts of a request's two legs."""
        self._prompt_checks.add((result,))

    def kv_released(self) -> None:
        """A handoff was given up and the prefill engine was told to free its KV."""
        self._kv_released.add(())

    def kv_stranded(self) -> None:
        """A handoff was given up and its KV stays on the prefill engine until that engine's own timeout."""
        self._kv_stranded.add(())

    def client_stalled(self) -> None:
        """A client took nothing of its answer for too long and was cut off."""
        self._clients_stalled.add(())

    def engine_changed(self, change: Change) -> None:
        """An engine joined, left or changed its state."""
        self._engine_changes.add((change.engine.role, change.what))

    def announcement_rejected(self, reason: str) -> None:
        """`reason` is a fixed word, not the announcement's content; more than a few distinct ones become `other`."""
        self._rejected.add((self._rejection_reason(reason),))


class DroppedLines(Collector):
    """Read from whoever writes the log."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterator[Metric]:
        family = counter_family(instruments.LOG_LINES_DROPPED)
        family.add_metric((), self._count())
        yield family


class LiveGauges(Collector):
    """Gauges that are read from their owners when metrics are collected."""

    def __init__(
        self,
        engines: Callable[[], Iterable[Engine]],
        inflight: Callable[[], Mapping[str, int]],
        conversations: Callable[[], int],
        buffered_bytes: Callable[[], int],
        echoes_ids: Callable[[Engine], bool | None],
    ) -> None:
        self._engines = engines
        self._inflight = inflight
        self._conversations = conversations
        self._buffered_bytes = buffered_bytes
        self._echoes_ids = echoes_ids

    def collect(self) -> Iterator[Metric]:
        known = tuple(self._engines())
        inflight = self._inflight()
        requests = gauge_family(instruments.INFLIGHT)
        up = gauge_family(instruments.ENGINE_UP)
        unhealthy = gauge_family(instruments.ENGINE_UNHEALTHY)
        echoing = gauge_family(instruments.ENGINE_ECHOES_IDS)
        for engine in known:
            requests.add_metric((engine.id,), inflight.get(engine.id, 0))
            up.add_metric((engine.id, engine.role), engine.state != "down")
            unhealthy.add_metric((engine.id, engine.role), engine.state == "unhealthy")
            echoes = self._echoes_ids(engine)
            if echoes is not None:
                echoing.add_metric((engine.id,), echoes)
        conversations = gauge_family(instruments.CONVERSATIONS)
        conversations.add_metric((), self._conversations())
        buffered = gauge_family(instruments.BUFFERED)
        buffered.add_metric((), self._buffered_bytes())
        return iter((requests, up, unhealthy, echoing, conversations, buffered))
