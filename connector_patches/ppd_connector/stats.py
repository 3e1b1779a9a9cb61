"""The connector's figures on their way to vLLM's log line and /metrics. Names and labels: `ppd_connector.wire`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

from ppd_connector import wire

_COUNTERS = (
    (wire.TRANSFERS, "KV transfers that did what they were for.", ()),
    (wire.TRANSFER_BYTES, "Bytes of KV that these transfers moved.", ()),
    (wire.TRANSFER_SECONDS, "Seconds during which these transfers were under way, summed over ranks.", ()),
    (wire.BLOCKS, "Blocks of these transfers: moved, or skipped because the consumer held them.", ("what",)),
    (wire.FAILURES, "KV transfers that did not do what they were for.", ("reason",)),
)


@dataclass
class PPDStats(KVConnectorStats):
    """`moved`: rows of direction, peer, transfers, bytes, seconds, blocks, skipped blocks; `failed`: direction, peer,
    reason, count; `held`: direction, bytes held now."""

    def __post_init__(self) -> None:
        if not self.data:
            self.reset()

    def reset(self) -> None:
        self.data: dict[str, Any] = {"moved": [], "failed": [], "held": []}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        for name in ("moved", "failed", "held"):
            self.data[name].extend(other.data.get(name, ()))
        return self

    def reduce(self) -> dict[str, int | float]:
        """For vLLM's periodic log line."""
        said: dict[str, int | float] = {}
        for direction in ("recv", "send"):
            rows = [row for row in self.data["moved"] if row[0] == direction]
            if rows:
                megabytes, seconds = sum(row[3] for row in rows) / 1e6, sum(row[4] for row in rows)
                said[f"{direction} transfers"] = sum(row[2] for row in rows)
                said[f"{direction} MB"] = round(megabytes, 3)
                said[f"{direction} MB/s"] = round(megabytes / seconds, 1) if seconds else 0
                said[f"{direction} skipped blocks"] = sum(row[6] for row in rows)
        said["failed transfers"] = sum(row[3] for row in self.data["failed"])
        return said

    def is_empty(self) -> bool:
        return not any(self.data.get(name) for name in ("moved", "failed", "held"))


class PPDPromMetrics(KVConnectorPromMetrics):
    """The counters, labelled as vLLM labels its own and by ours."""

    def __init__(
        self,
        vllm_config: Any,
        metric_types: dict[Any, Any],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._counters = {
            name: self._counter_cls(
                name=name.removesuffix("_total"),
                documentation=text,
                labelnames=[*labelnames, "direction", "peer", *more],
            )
            for name, text, more in _COUNTERS
        }
        self._held = self._gauge_cls(
            name=wire.HELD_BYTES,
            documentation="Bytes of KV that wait for their request (recv) or their peer (send), summed over ranks.",
            labelnames=[*labelnames, "direction"],
            multiprocess_mode="mostrecent",
        )

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        own = self.per_engine_labelvalues[engine_idx]
        counters = self._counters
        for direction, peer, transfers, kv_bytes, seconds, blocks, skipped in transfer_stats_data["moved"]:
            labels = (*own, direction, peer)
            counters[wire.TRANSFERS].labels(*labels).inc(transfers)
            counters[wire.TRANSFER_BYTES].labels(*labels).inc(kv_bytes)
            counters[wire.TRANSFER_SECONDS].labels(*labels).inc(seconds)
            counters[wire.BLOCKS].labels(*labels, "moved").inc(blocks)
            counters[wire.BLOCKS].labels(*labels, "skipped").inc(skipped)
        for direction, peer, reason, count in transfer_stats_data["failed"]:
            counters[wire.FAILURES].labels(*own, direction, peer, reason).inc(count)
        held: dict[str, int] = {}
        for direction, kv_bytes in transfer_stats_data.get("held", ()):
            held[direction] = held.get(direction, 0) + kv_bytes
        for direction, kv_bytes in held.items():
            self._held.labels(*own, direction).set(kv_bytes)
