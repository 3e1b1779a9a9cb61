"""What vLLM engines say about themselves on `/metrics`.

Does no IO. A series that an engine does not export is None: unknown is not zero, and an engine that tells nothing is
not idle. Names were read from vLLM 0.32 (`v1/metrics/loggers.py`, `kv_connector/v1/nixl/stats.py`); where releases
differ the first known name wins. Those of our own connector are in `ppd_connector.wire`, those of speculative decoding
in `spec_counters`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from ppd_connector import wire
from ppd_wire.metrics import spec_counters
from ppd_wire.metrics.spec_counters import SpecCounters

_BY_SOURCE = "vllm:prompt_tokens_by_source_total"

_GAUGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "running": ("vllm:num_requests_running",),
        "waiting": ("vllm:num_requests_waiting",),
    }
)
_RATIOS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")}
)
_COUNTERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "local_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
        "local_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        "external_queries": ("vllm:external_prefix_cache_queries_total",),
        "external_hits": ("vllm:external_prefix_cache_hits_total",),
        "preemptions": ("vllm:num_preemptions_total",),
        "nixl_post_s": ("vllm:nixl_post_time_seconds_sum",),
        "nixl_transfer_s": ("vllm:nixl_xfer_time_seconds_sum",),
        "nixl_transfers": ("vllm:nixl_xfer_time_seconds_count",),
        "nixl_bytes": ("vllm:nixl_bytes_transferred_sum",),
        "nixl_descriptors": ("vllm:nixl_num_descriptors_sum",),
        "nixl_failed_transfers": ("vllm:nixl_num_failed_transfers_total",),
        "nixl_failed_notifications": ("vllm:nixl_num_failed_notifications_total",),
        "nixl_expired": ("vllm:nixl_num_kv_expired_reqs_total",),
        "nixl_after_expiry": ("vllm:nixl_num_notifications_after_expiry_total",),
    }
)
_TIMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "queue": ("vllm:request_queue_time_seconds",),
        "prefill": ("vllm:request_prefill_time_seconds",),
        "decode": ("vllm:request_decode_time_seconds",),
        "inference": ("vllm:request_inference_time_seconds",),
        "e2e": ("vllm:e2e_request_latency_seconds",),
        "output_token": (
            "vllm:request_time_per_output_token_seconds",
            "vllm:inter_token_latency_seconds",
            "vllm:time_per_output_token_seconds",
        ),
    }
)
_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "local_compute": "prompt_computed",
        "local_cache_hit": "prompt_local_cache",
        "external_kv_transfer": "prompt_external_kv",
    }
)
_SCALARS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **_GAUGES,
        **_RATIOS,
        **_COUNTERS,
        **{f"{field}_s": tuple(f"{name}_sum" for name in names) for field, names in _TIMES.items()},
        **{f"{field}_count": tuple(f"{name}_count" for name in names) for field, names in _TIMES.items()},
        "process_start_s": ("process_start_time_seconds",),
    }
)
# Our connector's series: the field of `ConnectorFigures`, and for each of the labels that are kept its known values
# (none: any value).
_DIRECTIONS, _ANY = ("recv", "send"), ()
_LABELLED: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        wire.TRANSFER_BYTES: ("received_bytes", {"direction": ("recv",), "peer": _ANY}),
        wire.TRANSFER_SECONDS: ("received_s", {"direction": ("recv",), "peer": _ANY}),
        wire.BLOCKS: ("blocks", {"direction": _DIRECTIONS, "what": ("moved", "skipped")}),
        wire.FAILURES: ("failures", {"direction": _DIRECTIONS, "reason": _ANY}),
    }
)
_SPEC = frozenset((spec_counters.DRAFTS, spec_counters.DRAFT_TOKENS, spec_counters.ACCEPTED_TOKENS))
_WANTED = frozenset(
    (_BY_SOURCE, *chain.from_iterable(_SCALARS.values()), *_LABELLED, *_SPEC, spec_counters.ACCEPTED_PER_POSITION)
)
_NOT_COUNTED = frozenset((*_GAUGES, *_RATIOS, "process_start_s", "connector", "spec"))

ByLabels = Mapping[tuple[str, str], float]
_NOTHING: ByLabels = MappingProxyType({})


class ConnectorFigures(NamedTuple):
    """Counters of the ppd connector by two label values. A series appears with its first value: absent means zero.

    Every transfer is told twice, by its sender and its receiver; only the receiver's bytes and seconds are read.
    """

    received_bytes: ByLabels = _NOTHING
    """By ("recv", peer): the other engine's ZMQ address."""
    received_s: ByLabels = _NOTHING
    blocks: ByLabels = _NOTHING
    """By (direction, "moved" or "skipped")."""
    failures: ByLabels = _NOTHING
    """By (direction, reason)."""


NO_CONNECTOR = ConnectorFigures()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFigures:
    """One reading, summed over models and data-parallel ranks; None where the engine does not say.

    Tokens, requests, bytes; `_s` are seconds, `_count` is the number of observations behind them. `kv_usage` is 0 to 1,
    the mean over ranks. `process_start_s` is when the engine's server started (Unix time). These two, `running` and
    `waiting` are gauges, all others counters since that start.
    """

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    process_start_s: float | None = None
    local_queries: float | None = None
    local_hits: float | None = None
    external_queries: float | None = None
    external_hits: float | None = None
    preemptions: float | None = None
    prompt_computed: float | None = None
    prompt_local_cache: float | None = None
    prompt_external_kv: float | None = None
    queue_s: float | None = None
    queue_count: float | None = None
    prefill_s: float | None = None
    prefill_count: float | None = None
    decode_s: float | None = None
    decode_count: float | None = None
    inference_s: float | None = None
    inference_count: float | None = None
    e2e_s: float | None = None
    e2e_count: float | None = None
    output_token_s: float | None = None
    output_token_count: float | None = None
    nixl_transfers: float | None = None
    nixl_bytes: float | None = None
    nixl_transfer_s: float | None = None
    nixl_post_s: float | None = None
    nixl_descriptors: float | None = None
    nixl_failed_transfers: float | None = None
    nixl_failed_notifications: float | None = None
    nixl_expired: float | None = None
    nixl_after_expiry: float | None = None
    connector: ConnectorFigures = NO_CONNECTOR
    spec: SpecCounters | None = None
    """Counters of speculative decoding; None where the engine does not speculate."""

    @property
    def tells_sources(self) -> bool:
        """True if prompt tokens are told apart by where their KV came from (newer vLLM)."""
        return self.prompt_external_kv is not None

    @property
    def tells_transfers(self) -> bool:
        """True if KV transfers are measured (NIXL connector; ours from its first transfer on)."""
        is_nixl = self.nixl_bytes is not None and self.nixl_transfer_s is not None
        return is_nixl or bool(self.connector.received_bytes)


UNKNOWN = EngineFigures()
COUNTER_FIELDS = tuple(f.name for f in fields(EngineFigures) if f.name not in _NOT_COUNTED)
"""The fields of EngineFigures that only grow while an engine runs."""


def is_wanted(line: str) -> bool:
    """Whether anything is read from this line of an engine's `/metrics`, told by its name alone."""
    ends = [end for end in (line.find("{"), line.find(" ")) if end > 0]
    return line[: min(ends, default=len(line))] in _WANTED


def figures(samples: Iterable[tuple[str, Mapping[str, str], float]]) -> EngineFigures:
    """What samples (name, labels, value) say together. Values that are no finite numbers are unknown."""
    values: dict[str, list[float]] = {}
    connector: dict[str, dict[tuple[str, str], float]] = {}
    accepted: dict[str, float] = {}
    for name, labels, value in samples:
        if not math.isfinite(value):
            continue
        if name in _LABELLED:
            field, wanted = _LABELLED[name]
            if all(label in labels and (not known or labels[label] in known) for label, known in wanted.items()):
                first, second = (labels[label] for label in wanted)
                series = connector.setdefault(field, {})
                series[first, second] = series.get((first, second), 0) + value
            continue
        if name == spec_counters.ACCEPTED_PER_POSITION:
            position = labels.get("position", "")
            accepted[position] = accepted.get(position, 0) + value
            continue
        key = f"{_BY_SOURCE} {labels.get('source')}" if name == _BY_SOURCE else name
        values.setdefault(key, []).append(value)
    scalars: dict[str, float] = {}
    for field, names in _SCALARS.items():
        known = next((values[name] for name in names if name in values), None)
        if known is not None:
            scalars[field] = sum(known) / len(known) if field in _RATIOS else sum(known)
    for source, field in _SOURCES.items():
        if f"{_BY_SOURCE} {source}" in values:
            scalars[field] = sum(values[f"{_BY_SOURCE} {source}"])
    spec = spec_counters.read({name: sum(values[name]) for name in _SPEC if name in values}, accepted)
    return EngineFigures(**scalars, connector=ConnectorFigures(**connector), spec=spec)
