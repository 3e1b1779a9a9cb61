"""The proxy's own metrics: what happened to requests, KV handoffs and engines, and what is known of the engines.

Owns the counters and histograms on an injected registry. Gauges are read from the fleet, the readings, the loads and
the conversation store when someone asks for the metrics, so they cost nothing per request. Everything here, reading the
registry included, runs on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from ppd_core.fleet.engine import Engine
from ppd_core.fleet.fleet import Change
from ppd_core.fleet.readings import Readings
from ppd_proxy.request.record import Record
from ppd_proxy.telemetry import instruments
from ppd_proxy.telemetry.cells import Counters, Histograms, Live, counter_family, gauge_family
from ppd_proxy.telemetry.engines import EngineTelemetry
from ppd_proxy.telemetry.labels import Bounded, turn_label
from ppd_proxy.telemetry.speculation import draft_families

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
        Live(registry, partial(draft_families, readings))
        Live(registry, partial(_live_gauges, engines, inflight, conversations, buffered_bytes, echoes_ids))
        Live(registry, lambda: [counter_family(instruments.LOG_LINES_DROPPED, [((), dropped_log_lines())])])

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


def _live_gauges(
    engines: Callable[[], Iterable[Engine]],
    inflight: Callable[[], Mapping[str, int]],
    conversations: Callable[[], int],
    buffered_bytes: Callable[[], int],
    echoes_ids: Callable[[Engine], bool | None],
) -> Iterator[Metric]:
    known, requests = tuple(engines()), inflight()
    by_role = [((engine.id, engine.role), engine.state) for engine in known]
    echoing = (((engine.id,), echoes_ids(engine)) for engine in known)
    yield gauge_family(instruments.INFLIGHT, (((engine.id,), requests.get(engine.id, 0)) for engine in known))
    yield gauge_family(instruments.ENGINE_UP, ((labels, state != "down") for labels, state in by_role))
    yield gauge_family(instruments.ENGINE_UNHEALTHY, ((labels, state == "unhealthy") for labels, state in by_role))
    yield gauge_family(instruments.ENGINE_ECHOES_IDS, ((labels, does) for labels, does in echoing if does is not None))
    yield gauge_family(instruments.CONVERSATIONS, [((), conversations())])
    yield gauge_family(instruments.BUFFERED, [((), buffered_bytes())])
