"""What the engines tell: their own figures shown again, where prompt tokens came from, and what KV transfers cost.

Owns the latest reading of every engine and whatever needs readings and finished requests together. Does not fetch
readings (`upstream.scrape` does) and forgets an engine that left the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ppd_core.fleet.engine import Engine
from ppd_core.fleet.readings import PromptTokens, TokenLedger, delta, from_usage, is_restarted
from ppd_proxy.core.record import Record
from ppd_proxy.telemetry import instruments
from ppd_proxy.telemetry.cells import Counters, counter_family, gauge_family
from ppd_proxy.telemetry.instrument import Instrument
from ppd_proxy.telemetry.labels import SEVERAL, Bounded
from ppd_wire.metrics.scraped import UNKNOWN, ByLabels, ConnectorFigures, EngineFigures

_MAX_FAILURE_REASONS = 16

# What is shown again: the instrument, its labels beside `engine`, and the field of `EngineFigures`.
_COUNTERS: tuple[tuple[Instrument, tuple[str, ...], str], ...] = (
    (instruments.CACHE_QUERIES, ("local",), "local_queries"),
    (instruments.CACHE_QUERIES, ("external",), "external_queries"),
    (instruments.CACHE_HITS, ("local",), "local_hits"),
    (instruments.CACHE_HITS, ("external",), "external_hits"),
    (instruments.ENGINE_PROMPT_TOKENS, ("local_cache",), "prompt_local_cache"),
    (instruments.ENGINE_PROMPT_TOKENS, ("external_kv",), "prompt_external_kv"),
    (instruments.ENGINE_PROMPT_TOKENS, ("computed",), "prompt_computed"),
    (instruments.PREEMPTIONS, (), "preemptions"),
    (instruments.NIXL_TRANSFERS, (), "nixl_transfers"),
    (instruments.NIXL_POST_SECONDS, (), "nixl_post_s"),
    (instruments.NIXL_DESCRIPTORS, (), "nixl_descriptors"),
    (instruments.NIXL_FAILED_TRANSFERS, (), "nixl_failed_transfers"),
    (instruments.NIXL_FAILED_NOTIFICATIONS, (), "nixl_failed_notifications"),
    (instruments.NIXL_EXPIRED, (), "nixl_expired"),
    (instruments.NIXL_AFTER_EXPIRY, (), "nixl_after_expiry"),
)
_GAUGES: tuple[tuple[Instrument, tuple[str, ...], str], ...] = (
    (instruments.RUNNING, (), "running"),
    (instruments.WAITING, (), "waiting"),
    (instruments.KV_USAGE, (), "kv_usage"),
)
_SUMMARIES: tuple[tuple[Instrument, tuple[str, ...], str], ...] = (
    (instruments.ENGINE_REQUEST, ("queue",), "queue"),
    (instruments.ENGINE_REQUEST, ("prefill",), "prefill"),
    (instruments.ENGINE_REQUEST, ("decode",), "decode"),
    (instruments.ENGINE_REQUEST, ("inference",), "inference"),
    (instruments.ENGINE_REQUEST, ("e2e",), "e2e"),
    (instruments.TIME_PER_OUTPUT_TOKEN, (), "output_token"),
)


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What is known of one engine since its first reading."""

    latest: EngineFigures
    """The newest reading, UNKNOWN when the newest attempt failed."""
    base: EngineFigures
    """The newest reading that succeeded: the next one's gain counts from here."""
    read_at: float
    is_measured: bool
    """It has exported figures of transfers, or will from its first transfer on (our connector): they are never
    estimated, also not while it cannot be read."""
    ledger: TokenLedger = field(default_factory=TokenLedger)
    prefills: set[str] = field(default_factory=set)
    """Prefill engines that handed KV to it since `read_at`, as far as finished requests tell."""


@dataclass(slots=True)
class _Estimate:
    kv_bytes: float = 0
    seconds: float = 0


class EngineTelemetry(Collector):
    """Takes readings and finished requests, shows what follows from both.

    `engines` gives all known engines, `inflight` requests in flight by engine id. Without `kv_bytes_per_token` nothing
    is estimated. `is_scraping` says that readings will come.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        engines: Callable[[], Iterable[Engine]],
        inflight: Callable[[], Mapping[str, int]],
        kv_bytes_per_token: int | None,
        is_scraping: bool,
    ) -> None:
        self._engines = engines
        self._inflight = inflight
        self._kv_bytes_per_token = kv_bytes_per_token
        self._is_scraping = is_scraping
        self._seen: dict[str, _Seen] = {}
        self._estimates: dict[str, dict[str, _Estimate]] = {}
        self._bandwidth: dict[str, tuple[str, dict[str, float]]] = {}
        """By decode engine: the source, and bytes per second by prefill engine."""
        self._prompt_tokens = Counters(registry, instruments.PROMPT_TOKENS)
        self._kv_bytes = Counters(registry, instruments.KV_BYTES)
        self._kv_seconds = Counters(registry, instruments.KV_SECONDS)
        self._failure_reason = Bounded(_MAX_FAILURE_REASONS)
        registry.register(self)

    # What comes in

    def finished(self, record: Record) -> None:
        """Count a request's prompt tokens and, where nothing is measured, its KV transfer."""
        tokens, decode_id = record.prompt_tokens, record.decode_id
        if decode_id is None:
            return
        seen = self._seen.get(decode_id)
        tells_sources = seen is not None and seen.base.tells_sources
        if record.route == "pd" and record.has_kv is not False:
            self._handed_over(seen, record)
        if tokens is None:
            return
        if record.route == "pd" and tells_sources:
            return  # comes with the next reading
        if record.route == "pd" and record.has_kv is not False:
            split = PromptTokens(unknown=tokens)
        else:
            cached_tokens = record.cached_tokens if record.choices == 1 else None  # told for one choice only
            split = from_usage(tokens * record.choices, cached_tokens)
        self._count(record.route, split)
        if seen is not None and tells_sources:
            seen.ledger.add_other(split)

    def scraped(self, engine: Engine, figures: EngineFigures, now: float) -> None:
        """Take a reading; UNKNOWN if it failed. Engines that left meanwhile are ignored. `now` is monotonic."""
        if all(known.id != engine.id for known in self._engines()):
            return
        self._close_estimates(engine.id)
        seen = self._seen.get(engine.id)
        if figures == UNKNOWN:
            if seen is not None:
                seen.latest = UNKNOWN
            return
        is_measured = figures.tells_transfers or engine.is_ppd
        if is_measured:
            self._kv_bytes.add(("measured",), 0)
            self._kv_seconds.add(("measured",), 0)
        if seen is None:
            self._seen[engine.id] = _Seen(latest=figures, base=figures, read_at=now, is_measured=is_measured)
            return
        gained = delta(seen.base, figures)
        if is_restarted(seen.base, figures):
            # What it counted between the last reading and its end is lost, so the old balances will never be settled.
            seen.ledger = TokenLedger()
        seen.latest = seen.base = figures
        seen.is_measured = seen.is_measured or is_measured
        if engine.role == "decode" and gained.tells_sources:
            is_idle = not self._inflight().get(engine.id)
            self._count("pd", seen.ledger.settle(gained, is_idle=is_idle, now=now))
        self._measure(engine, seen, gained)
        seen.read_at = now

    def failed_transfers(self, reasons: Collection[str]) -> int:
        """As the engines' connectors counted them last."""
        failures = (seen.latest.connector.failures for seen in self._seen.values())
        return round(sum(count for each in failures for (_, reason), count in each.items() if reason in reasons))

    def forget(self, engine_id: str) -> None:
        """The engine left the fleet."""
        self._seen.pop(engine_id, None)
        self._estimates.pop(engine_id, None)
        self._bandwidth.pop(engine_id, None)

    # What follows

    def _count(self, route: str, tokens: PromptTokens) -> None:
        if tokens.local_cache:
            self._prompt_tokens.add((route, "local_cache"), tokens.local_cache)
        if tokens.external_kv:
            self._prompt_tokens.add((route, "external_kv"), tokens.external_kv)
        if tokens.computed:
            self._prompt_tokens.add((route, "computed"), tokens.computed)
        if tokens.unknown:
            self._prompt_tokens.add((route, "unknown"), tokens.unknown)

    def _measure(self, engine: Engine, seen: _Seen, gained: EngineFigures) -> None:
        rates = self._measured_by_nixl(engine, seen, gained) | self._measured_by_connector(gained.connector)
        if engine.role == "decode" and rates:
            self._bandwidth[engine.id] = ("measured", rates)

    def _measured_by_nixl(self, engine: Engine, seen: _Seen, gained: EngineFigures) -> dict[str, float]:
        """Bytes per second by prefill engine, which NIXL does not tell: it is known where only one was used."""
        kv_bytes, seconds = gained.nixl_bytes, gained.nixl_transfer_s
        if not kv_bytes or not seconds:
            return {}
        self._kv_bytes.add(("measured",), kv_bytes)
        self._kv_seconds.add(("measured",), seconds)
        candidates = seen.prefills or {known.id for known in self._engines() if known.role == "prefill"}
        seen.prefills = set()
        return {next(iter(candidates)) if len(candidates) == 1 else SEVERAL: kv_bytes / seconds}

    def _measured_by_connector(self, gained: ConnectorFigures) -> dict[str, float]:
        """Bytes per second by prefill engine; those that the fleet does not know are `several` together."""
        kv_bytes, seconds = self._by_prefill(gained.received_bytes), self._by_prefill(gained.received_s)
        if kv_bytes:
            self._kv_bytes.add(("measured",), sum(kv_bytes.values()))
        if seconds:
            self._kv_seconds.add(("measured",), sum(seconds.values()))
        return {prefill: kv_bytes[prefill] / spent for prefill, spent in seconds.items() if prefill in kv_bytes}

    def _by_prefill(self, received: ByLabels) -> dict[str, float]:
        known = {engine.zmq_address: engine.id for engine in self._engines()}
        found: dict[str, float] = {}
        for (_, peer), amount in received.items():
            prefill = known.get(peer, SEVERAL)
            found[prefill] = found.get(prefill, 0) + amount
        return found

    def _is_measured(self, seen: _Seen | None, record: Record) -> bool:
        """Before its first reading an engine with NIXL or our connector counts as measured: its figures will come."""
        if seen is not None:
            return seen.is_measured
        is_ppd = any(engine.is_ppd for engine in self._engines() if engine.id == record.decode_id)
        return self._is_scraping and (record.handoff == "nixl" or is_ppd)

    def _handed_over(self, seen: _Seen | None, record: Record) -> None:
        prefill_id, opened_at = record.prefill_id, record.decode_opened_at
        if seen is not None and prefill_id is not None and opened_at is not None and opened_at >= seen.read_at:
            seen.prefills.add(prefill_id)
        if self._kv_bytes_per_token is not None and record.prompt_tokens and not self._is_measured(seen, record):
            self._estimate(record, float(record.prompt_tokens * self._kv_bytes_per_token))

    def _estimate(self, record: Record, kv_bytes: float) -> None:
        self._kv_bytes.add(("estimated",), kv_bytes)
        decode_id = record.decode_id
        opened_at, first_at, prefill_id = record.decode_opened_at, record.first_token_at, record.prefill_id
        if decode_id is None or prefill_id is None or opened_at is None or first_at is None or first_at <= opened_at:
            return
        self._kv_seconds.add(("estimated",), first_at - opened_at)
        estimate = self._estimates.setdefault(decode_id, {}).setdefault(prefill_id, _Estimate())
        estimate.kv_bytes += kv_bytes
        estimate.seconds += first_at - opened_at
        if not self._is_scraping:
            self._close_estimates(decode_id)

    def _close_estimates(self, decode_id: str) -> None:
        """End of an interval; without scraping every request is one."""
        estimates = self._estimates.pop(decode_id, None)
        if estimates:
            rates = {prefill: estimate.kv_bytes / estimate.seconds for prefill, estimate in estimates.items()}
            self._bandwidth[decode_id] = ("estimated", rates)

    # What goes out

    def collect(self) -> Iterator[Metric]:
        known = sorted(engine.id for engine in self._engines())
        latest = {engine_id: self._seen[engine_id].latest for engine_id in known if engine_id in self._seen}
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for rows, new_family in ((_COUNTERS, counter_family), (_GAUGES, gauge_family)):
            for instrument, labels, name in rows:
                family = families.get(instrument.name) or families.setdefault(instrument.name, new_family(instrument))
                for engine_id, figures in latest.items():
                    if (value := getattr(figures, name)) is not None:
                        family.add_metric((engine_id, *labels), value)
        yield from families.values()
        yield from _summaries(latest)
        yield from self._connector_families(latest)
        yield self._bandwidth_family(frozenset(known))

    def _connector_families(self, latest: Mapping[str, EngineFigures]) -> Iterator[Metric]:
        blocks, failures = counter_family(instruments.KV_BLOCKS), counter_family(instruments.KV_FAILURES)
        for engine_id, figures in latest.items():
            for (direction, what), count in figures.connector.blocks.items():
                blocks.add_metric((engine_id, direction, what), count)
            shown: dict[tuple[str, str], float] = {}
            for (direction, reason), count in figures.connector.failures.items():
                label = self._failure_reason(reason)
                shown[direction, label] = shown.get((direction, label), 0) + count
            for (direction, label), count in shown.items():
                failures.add_metric((engine_id, direction, label), count)
        return iter((blocks, failures))

    def _bandwidth_family(self, known: frozenset[str]) -> Metric:
        family = gauge_family(instruments.KV_BANDWIDTH)
        for decode_id, (source, rates) in self._bandwidth.items():
            for prefill, rate in rates.items():
                if decode_id in known and (prefill in known or prefill == SEVERAL):
                    family.add_metric((source, prefill, decode_id), rate)
        return family


def _summaries(latest: Mapping[str, EngineFigures]) -> Iterable[Metric]:
    families: dict[str, SummaryMetricFamily] = {}
    for instrument, labels, name in _SUMMARIES:
        family = families.get(instrument.name)
        if family is None:
            family = SummaryMetricFamily(instrument.name, instrument.help, labels=instrument.labels)
            families[instrument.name] = family
        for engine_id, figures in latest.items():
            count, seconds = getattr(figures, f"{name}_count"), getattr(figures, f"{name}_s")
            if count is not None and seconds is not None:
                family.add_metric((engine_id, *labels), count, seconds)
    return families.values()
