"""What the engines tell: their own figures shown again, where prompt tokens came from, and what KV transfers cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ppd_core.fleet.readings import Readings
from ppd_proxy.telemetry import instruments
from ppd_proxy.telemetry.cells import counter_family, gauge_family, summary_family
from ppd_proxy.telemetry.instrument import Instrument
from ppd_proxy.telemetry.labels import Bounded
from ppd_wire.metrics.scraped import EngineFigures

_MAX_FAILURE_REASONS = 16

# What is shown again: the instrument, its labels beside `engine`, and the fields of `EngineFigures`.
_Rows = tuple[tuple[Instrument, tuple[str, ...], tuple[str, ...]], ...]
_COUNTERS: _Rows = (
    (instruments.CACHE_QUERIES, ("local",), ("local_queries",)),
    (instruments.CACHE_QUERIES, ("external",), ("external_queries",)),
    (instruments.CACHE_HITS, ("local",), ("local_hits",)),
    (instruments.CACHE_HITS, ("external",), ("external_hits",)),
    (instruments.ENGINE_PROMPT_TOKENS, ("local_cache",), ("prompt_local_cache",)),
    (instruments.ENGINE_PROMPT_TOKENS, ("external_kv",), ("prompt_external_kv",)),
    (instruments.ENGINE_PROMPT_TOKENS, ("computed",), ("prompt_computed",)),
    (instruments.PREEMPTIONS, (), ("preemptions",)),
    (instruments.NIXL_TRANSFERS, (), ("nixl_transfers",)),
    (instruments.NIXL_POST_SECONDS, (), ("nixl_post_s",)),
    (instruments.NIXL_DESCRIPTORS, (), ("nixl_descriptors",)),
    (instruments.NIXL_FAILED_TRANSFERS, (), ("nixl_failed_transfers",)),
    (instruments.NIXL_FAILED_NOTIFICATIONS, (), ("nixl_failed_notifications",)),
    (instruments.NIXL_EXPIRED, (), ("nixl_expired",)),
    (instruments.NIXL_AFTER_EXPIRY, (), ("nixl_after_expiry",)),
)
_GAUGES: _Rows = (
    (instruments.RUNNING, (), ("running",)),
    (instruments.WAITING, (), ("waiting",)),
    (instruments.KV_USAGE, (), ("kv_usage",)),
)
_SUMMARIES: _Rows = (
    (instruments.ENGINE_REQUEST, ("queue",), ("queue_count", "queue_s")),
    (instruments.ENGINE_REQUEST, ("prefill",), ("prefill_count", "prefill_s")),
    (instruments.ENGINE_REQUEST, ("decode",), ("decode_count", "decode_s")),
    (instruments.ENGINE_REQUEST, ("inference",), ("inference_count", "inference_s")),
    (instruments.ENGINE_REQUEST, ("e2e",), ("e2e_count", "e2e_s")),
    (instruments.TIME_PER_OUTPUT_TOKEN, (), ("output_token_count", "output_token_s")),
)


class EngineTelemetry(Collector):
    def __init__(self, registry: CollectorRegistry, readings: Readings) -> None:
        self._readings = readings
        self._failure_reason = Bounded(_MAX_FAILURE_REASONS)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        readings = self._readings
        transfers, latest = readings.transfers, readings.latest()
        yield counter_family(instruments.PROMPT_TOKENS, readings.prompt_tokens.items())
        totals = ((instruments.KV_BYTES, transfers.kv_bytes), (instruments.KV_SECONDS, transfers.seconds))
        for instrument, by_origin in totals:
            yield counter_family(instrument, (((origin,), total) for origin, total in by_origin.items()))
        yield from _families(_COUNTERS, counter_family, latest)
        yield from _families(_GAUGES, gauge_family, latest)
        yield from _families(_SUMMARIES, summary_family, latest)
        yield from self._connector_families(latest)
        yield gauge_family(instruments.KV_BANDWIDTH, readings.rates().items())

    def _connector_families(self, latest: Mapping[str, EngineFigures]) -> Iterator[Metric]:
        blocks, failures = counter_family(instruments.KV_BLOCKS), defaultdict[tuple[str, ...], float](float)
        for engine_id, figures in latest.items():
            for (direction, what), count in figures.connector.blocks.items():
                blocks.add_metric((engine_id, direction, what), count)
            for (direction, reason), count in figures.connector.failures.items():
                failures[engine_id, direction, self._failure_reason(reason)] += count
        return iter((blocks, counter_family(instruments.KV_FAILURES, failures.items())))


def _families(
    rows: _Rows, new_family: Callable[[Instrument], Any], latest: Mapping[str, EngineFigures]
) -> Iterable[Metric]:
    families: dict[str, Any] = {}
    for instrument, labels, fields in rows:
        family = families.get(instrument.name) or families.setdefault(instrument.name, new_family(instrument))
        for engine_id, figures in latest.items():
            values = [getattr(figures, field) for field in fields]
            if None not in values:
                family.add_metric((engine_id, *labels), *values)
    return families.values()
