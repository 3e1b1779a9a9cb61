"""vLLM's metric names on the simulated engine's own registry; the figures describe the simulation only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ppd_connector import wire
from ppd_sim.config import EngineConfig
from ppd_wire.answers.transfer import Transfer

Direction = Literal["recv", "send"]

_LABELS: Final = ("model_name", "engine")
_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BYTES: Final = tuple(float(2 ** (10 + exponent)) for exponent in range(1, 25, 2))
_COUNTS: Final = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0)
SOURCES: Final = ("local_compute", "local_cache_hit", "external_kv_transfer")


class EngineMetrics:
    """Every instrument of one engine. Names of old releases are served beside or instead of the new ones."""

    def __init__(self, config: EngineConfig) -> None:
        self.registry = CollectorRegistry()
        self._labels = (config.model_name, "0")
        self._names = config.metric_names
        self.prefix_queries = self._counters("prefix_cache_queries", "gpu_prefix_cache_queries")
        self.prefix_hits = self._counters("prefix_cache_hits", "gpu_prefix_cache_hits")
        self.external_queries = self._counters("external_prefix_cache_queries")
        self.external_hits = self._counters("external_prefix_cache_hits")
        self.preemptions = self._counters("num_preemptions")
        self.prompt_tokens = self._counters("prompt_tokens")
        self.generation_tokens = self._counters("generation_tokens")
        by_source = Counter(
            "vllm:prompt_tokens_by_source", "Prompt tokens by source.", (*_LABELS, "source"), registry=self.registry
        )
        self.prompt_tokens_by_source = {source: by_source.labels(*self._labels, source) for source in SOURCES}
        success = Counter(
            "vllm:request_success", "Finished requests.", (*_LABELS, "finished_reason"), registry=self.registry
        )
        self.success = {reason: success.labels(*self._labels, reason) for reason in ("stop", "length", "abort")}
        self.time_to_first_token = self._histograms("time_to_first_token_seconds")
        self.inter_token = self._histograms("inter_token_latency_seconds", "time_per_output_token_seconds")
        self.per_output_token = self._histograms("request_time_per_output_token_seconds")
        self.queue_time = self._histograms("request_queue_time_seconds")
        self.prefill_time = self._histograms("request_prefill_time_seconds")
        self.decode_time = self._histograms("request_decode_time_seconds")
        self.inference_time = self._histograms("request_inference_time_seconds")
        self.e2e_time = self._histograms("e2e_request_latency_seconds")
        self.nixl_xfer = self._histograms("nixl_xfer_time_seconds")
        self.nixl_post = self._histograms("nixl_post_time_seconds")
        self.nixl_bytes = self._histograms("nixl_bytes_transferred", buckets=_BYTES)
        self.nixl_descriptors = self._histograms("nixl_num_descriptors", buckets=_COUNTS)
        self.nixl_failed = self._counters("nixl_num_failed_transfers")
        self.nixl_failed_notifications = self._counters("nixl_num_failed_notifications")
        self.nixl_expired = self._counters("nixl_num_kv_expired_reqs")
        self.connector = ConnectorMetrics(self.registry, self._labels)

    def read_gauges_from(
        self, running: Callable[[], float], waiting: Callable[[], float], usage: Callable[[], float]
    ) -> None:
        """Gauges are read when somebody scrapes."""
        for name, old_name, read in (
            ("num_requests_running", None, running),
            ("num_requests_waiting", None, waiting),
            ("kv_cache_usage_perc", "gpu_cache_usage_perc", usage),
        ):
            for shown in self._shown(name, old_name):
                gauge = Gauge(f"vllm:{shown}", f"{shown} of the simulated engine.", _LABELS, registry=self.registry)
                gauge.labels(*self._labels).set_function(read)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def _shown(self, name: str, old_name: str | None) -> list[str]:
        if old_name is None or self._names == "new":
            return [name]
        return [old_name] if self._names == "old" else [name, old_name]

    def _counters(self, name: str, old_name: str | None = None) -> Instruments:
        return Instruments(
            [
                Counter(f"vllm:{shown}", f"{shown} of the simulated engine.", _LABELS, registry=self.registry).labels(
                    *self._labels
                )
                for shown in self._shown(name, old_name)
            ],
            [],
        )

    def _histograms(self, name: str, old_name: str | None = None, buckets: tuple[float, ...] = _SECONDS) -> Instruments:
        return Instruments(
            [],
            [
                Histogram(
                    f"vllm:{shown}", f"{shown} of the simulated engine.", _LABELS, registry=self.registry,
                    buckets=buckets,
                ).labels(*self._labels)
                for shown in self._shown(name, old_name)
            ],
        )  # fmt: skip


class ConnectorMetrics:
    """What an engine with our connector tells of its transfers; a series appears with its first value."""

    def __init__(self, registry: CollectorRegistry, labels: tuple[str, str]) -> None:
        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, (*_LABELS, "direction", "peer", *more), registry=registry)

        self._labels = labels
        self._bytes = counter(wire.TRANSFER_BYTES, "KV moved, bytes.")
        self._seconds = counter(wire.TRANSFER_SECONDS, "Time of KV transfers, seconds.")
        self._transfers = counter(wire.TRANSFERS, "KV transfers.")
        self._blocks = counter(wire.BLOCKS, "KV blocks of handoffs.", "what")
        self._failures = counter(wire.FAILURES, "Failed KV transfers.", "reason")

    def count(self, direction: Direction, peer: str, transfer: Transfer) -> None:
        at = (*self._labels, direction, peer)
        self._bytes.labels(*at).inc(transfer.bytes)
        self._seconds.labels(*at).inc(transfer.seconds)
        self._transfers.labels(*at).inc()
        self._blocks.labels(*at, "moved").inc(transfer.blocks)
        self._blocks.labels(*at, "skipped").inc(transfer.skipped_blocks)

    def fail(self, direction: Direction, peer: str, reason: str) -> None:
        self._failures.labels(*self._labels, direction, peer, reason).inc()


class Instruments:
    """One figure under its new name, its old name or both."""

    def __init__(self, counters: list[Counter], histograms: list[Histogram]) -> None:
        self._counters = counters
        self._histograms = histograms

    def inc(self, amount: float = 1.0) -> None:
        for counter in self._counters:
            counter.inc(amount)

    def observe(self, value: float) -> None:
        for histogram in self._histograms:
            histogram.observe(value)
