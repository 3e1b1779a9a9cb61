"""Every metric the proxy exposes, in one table: its name, kind, labels, unit and meaning.

`ppd_proxy.telemetry.metrics` builds the counters and histograms from it, the collectors the gauges and what is read
from the engines. The metrics of accuracy shadowing are in `instruments_shadow`. The reference's table is generated
from all of them, so `help` and `label_values` are written for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ppd_proxy.telemetry import instruments_shadow as shadow
from ppd_proxy.telemetry.instrument import Instrument, Kind

# Log-spaced, finest where a direct turn (tens of milliseconds) and a pd turn (hundreds) must be told apart; the tail
# reaches the queueing of an overloaded cluster.
_FIRST_TOKEN_BUCKETS_S = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60, 120)
# A decode step takes 5 to 50 ms on accelerators and up to a second on a CPU.
_INTER_TOKEN_BUCKETS_S = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1)
# From a refusal (milliseconds) to a long generation (minutes).
_REQUEST_BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300, 600)


REQUESTS = Instrument(
    name="ppd_requests_total",
    kind="counter",
    group="requests",
    labels=("route", "status"),
    help="Finished client requests by route and numeric HTTP status; route `none`: refused or passed on.",
)
CLIENTS_STALLED = Instrument(
    name="ppd_clients_stalled_total",
    kind="counter",
    group="requests",
    help="Clients cut off because they took nothing of their answer for --write-timeout-s.",
)
DECISIONS = Instrument(
    name="ppd_route_decisions_total",
    kind="counter",
    group="requests",
    labels=("mode", "route", "reason"),
    help="Routing decisions by mode, route and reason code; a failed request that is routed again counts again.",
)
FIRST_TOKEN = Instrument(
    name="ppd_time_to_first_token_seconds",
    kind="histogram",
    group="requests",
    labels=("route", "turn"),
    unit="seconds",
    label_values={"turn": "`1` or `2+`"},
    buckets=_FIRST_TOKEN_BUCKETS_S,
    help="From the request's arrival at the proxy to the first event with content; streams only.",
)
INTER_TOKEN = Instrument(
    name="ppd_inter_token_seconds",
    kind="histogram",
    group="requests",
    labels=("route",),
    unit="seconds",
    buckets=_INTER_TOKEN_BUCKETS_S,
    help="Time between tokens, once per streamed answer: last minus first token over tokens minus one.",
)
REQUEST = Instrument(
    name="ppd_request_seconds",
    kind="histogram",
    group="requests",
    labels=("route",),
    unit="seconds",
    buckets=_REQUEST_BUCKETS_S,
    help="From the request's arrival to the end of its answer.",
)
PROMPT_TOKENS = Instrument(
    name="ppd_prompt_tokens_total",
    kind="counter",
    group="requests",
    labels=("route", "source"),
    unit="tokens",
    label_values={"source": "`local_cache`, `external_kv`, `computed` or `unknown`"},
    help="Prompt tokens by where the answering engine had their KV from: its own prefix cache, another engine, its own "
    "prefill, or unknown where it does not tell. Route `pd` is read from the decode engine's metrics, so it lags by a "
    "scrape, and by up to a minute while that engine is never idle.",
)
KV_BYTES = Instrument(
    name="ppd_kv_transfer_bytes_total",
    kind="counter",
    group="kv",
    labels=("source",),
    unit="bytes",
    label_values={"source": "`measured` or `estimated`"},
    help="KV cache moved between engines. `measured`: as the receiving engines report it (NIXL, ppd connector). "
    "`estimated`: prompt tokens times bytes per token, an upper bound, only for decode engines that report nothing.",
)
KV_SECONDS = Instrument(
    name="ppd_kv_transfer_seconds_total",
    kind="counter",
    group="kv",
    labels=("source",),
    unit="seconds",
    label_values={"source": "`measured` or `estimated`"},
    help="Time of these transfers. `estimated`: from the decode leg's request to its first token, an upper bound, "
    "streams only.",
)
KV_BANDWIDTH = Instrument(
    name="ppd_kv_transfer_bandwidth_bytes_per_second",
    kind="gauge",
    group="kv",
    labels=("source", "prefill", "decode"),
    unit="bytes/second",
    label_values={"prefill": "engine, or `several` when the interval's transfers cannot be told apart"},
    help="Bytes over transfer time in the last scrape interval with transfers. `estimated` is rough: both of "
    "its terms are upper bounds.",
)
RETRIES = Instrument(
    name="ppd_retries_total",
    kind="counter",
    group="requests",
    labels=("result",),
    label_values={"result": "`made`, or `refused`: too many in the last 10 s (20 % of the requests and 10 a second)"},
    help="Requests that failed before the client got a byte and were to be tried again.",
)
PROMPT_CHECKS = Instrument(
    name="ppd_prompt_count_checks_total",
    kind="counter",
    group="kv",
    labels=("result",),
    label_values={"result": "`same`, `differs` or `unknown` (an engine gives no count)"},
    help="Route `pd`: whether both legs counted the same prompt tokens. `differs`: they rendered two prompts, so that "
    "the KV that was moved fits neither; the answer is not used.",
)
KV_RELEASED = Instrument(
    name="ppd_kv_released_total",
    kind="counter",
    group="kv",
    help="Handoffs that were given up and whose KV the prefill engine was told to free.",
)
KV_STRANDED = Instrument(
    name="ppd_kv_stranded_total",
    kind="counter",
    group="kv",
    help="Handoffs that were given up and whose KV stays on the prefill engine until its own timeout.",
)
INFLIGHT = Instrument(
    name="ppd_inflight",
    kind="gauge",
    group="engines",
    labels=("engine",),
    unit="requests",
    help="Requests in flight at an engine, as the proxy counts them.",
)
ENGINE_UP = Instrument(
    name="ppd_engine_up",
    kind="gauge",
    group="engines",
    labels=("engine", "role"),
    help="1 while the engine is alive (up, unhealthy or draining), 0 while it is down.",
)
ENGINE_UNHEALTHY = Instrument(
    name="ppd_engine_unhealthy",
    kind="gauge",
    group="engines",
    labels=("engine", "role"),
    help="1 while the engine is alive but its last 5 answers all failed: it gets no requests where there is another.",
)
ENGINE_ECHOES_IDS = Instrument(
    name="ppd_engine_echoes_ids",
    kind="gauge",
    group="engines",
    labels=("engine",),
    help="1 if the engine's answers carry the id of their request, so that a stranger's answer is refused; 0 if ten in "
    "a row did not, so that it would not be noticed; absent until either is known.",
)
ENGINE_CHANGES = Instrument(
    name="ppd_engine_changes_total",
    kind="counter",
    group="engines",
    labels=("role", "change"),
    label_values={"change": "`joined`, `up`, `unhealthy`, `down`, `draining` or `left`"},
    help="What happened to engines.",
)
ANNOUNCEMENTS_REJECTED = Instrument(
    name="ppd_announcements_rejected_total",
    kind="counter",
    group="engines",
    labels=("reason",),
    help="Engine announcements that were not understood or not accepted.",
)
CONVERSATIONS = Instrument(
    name="ppd_conversations",
    kind="gauge",
    group="engines",
    help="Conversations whose history is remembered.",
)
BUFFERED = Instrument(
    name="ppd_buffered_bytes",
    kind="gauge",
    group="requests",
    unit="bytes",
    help="Request bodies and answers held in memory; above `--max-buffered-bytes` new requests get 503.",
)
LOG_LINES_DROPPED = Instrument(
    name="ppd_log_lines_dropped_total",
    kind="counter",
    group="requests",
    help="Log lines that were dropped because stderr was not read, or could not be written, in time.",
)


def _scraped(
    name: str, kind: Kind, text: str, *labels: str, unit: str = "", values: Mapping[str, str] | None = None
) -> Instrument:
    return Instrument(
        name=f"ppd_engine_{name}",
        kind=kind,
        group="scraped",
        labels=("engine", *labels),
        unit=unit,
        help=text,
        label_values=values or {},
    )


_CACHES = MappingProxyType({"cache": "`local` (its own prefix cache) or `external` (KV handed over)"})

CACHE_QUERIES = _scraped(
    "prefix_cache_queries_total", "counter", "Prompt tokens looked up.", "cache", unit="tokens", values=_CACHES
)
CACHE_HITS = _scraped(
    "prefix_cache_hits_total", "counter", "Prompt tokens found.", "cache", unit="tokens", values=_CACHES
)
ENGINE_PROMPT_TOKENS = _scraped(
    "prompt_tokens_total",
    "counter",
    "Prompt tokens by where the engine had their KV from, all its clients together.",
    "source",
    unit="tokens",
    values={"source": "`local_cache`, `external_kv` or `computed`"},
)
RUNNING = _scraped("requests_running", "gauge", "Requests in the running batch.", unit="requests")
WAITING = _scraped("requests_waiting", "gauge", "Requests that wait to be scheduled.", unit="requests")
KV_USAGE = _scraped("kv_usage_ratio", "gauge", "KV cache in use, 0 to 1; the mean over data-parallel ranks.")
PREEMPTIONS = _scraped("preemptions_total", "counter", "Requests put back because the KV cache was full.")
ENGINE_REQUEST = _scraped(
    "request_seconds",
    "summary",
    "Request times as the engine measures them.",
    "phase",
    unit="seconds",
    values={"phase": "`queue`, `prefill`, `decode`, `inference` or `e2e`"},
)
TIME_PER_OUTPUT_TOKEN = _scraped(
    "time_per_output_token_seconds", "summary", "Time per output token as the engine measures it.", unit="seconds"
)
NIXL_TRANSFERS = _scraped("kv_transfers_total", "counter", "KV transfers (NIXL).")
NIXL_POST_SECONDS = _scraped(
    "kv_transfer_post_seconds_total", "counter", "Time spent on submitting KV transfers (NIXL).", unit="seconds"
)
NIXL_DESCRIPTORS = _scraped("kv_transfer_descriptors_total", "counter", "Memory descriptors of KV transfers (NIXL).")
NIXL_FAILED_TRANSFERS = _scraped(
    "kv_transfer_failures_total",
    "counter",
    "Failed KV transfers (NIXL); newer engines count failed handshakes and notifications too.",
)
NIXL_FAILED_NOTIFICATIONS = _scraped(
    "kv_notification_failures_total", "counter", "Failed notifications that KV can be freed (NIXL)."
)
NIXL_EXPIRED = _scraped(
    "kv_expired_requests_total", "counter", "Requests whose KV a prefill engine freed before it was read (NIXL)."
)
NIXL_AFTER_EXPIRY = _scraped(
    "kv_notifications_after_expiry_total",
    "counter",
    "Transfers that ended after their KV had expired (NIXL): what was read may have been overwritten.",
)
KV_BLOCKS = _scraped(
    "kv_blocks_total",
    "counter",
    "KV blocks of handoffs (ppd connector): moved, or skipped because the decode engine held them.",
    "direction",
    "what",
    values={"direction": "`recv` or `send`", "what": "`moved` or `skipped`"},
)
KV_FAILURES = _scraped(
    "kv_failures_total",
    "counter",
    "Failed KV transfers (ppd connector).",
    "direction",
    "reason",
    values={"direction": "`recv` or `send`"},
)

SPEC_DRAFTS = _scraped("spec_drafts_total", "counter", "Drafts of speculative decoding: one per request and step.")
SPEC_DRAFT_TOKENS = _scraped("spec_draft_tokens_total", "counter", "Tokens of these drafts.", unit="tokens")
SPEC_ACCEPTED = _scraped(
    "spec_accepted_tokens_total", "counter", "Draft tokens that were accepted.", "position", unit="tokens",
    values={"position": "in the draft, from 0"},
)  # fmt: skip
SPEC_LENGTH = Instrument(
    name="ppd_spec_acceptance_length",
    kind="gauge",
    group="scraped",
    labels=("engine",),
    unit="tokens",
    help="Tokens per step of speculative decoding, 1 + accepted tokens over drafts, in the last 5 minutes; absent "
    "without drafts.",
)
SPEC_RATE = Instrument(
    name="ppd_spec_acceptance_rate",
    kind="gauge",
    group="scraped",
    labels=("engine", "position"),
    label_values={"position": "in the draft, from 0: accepted over drafts; `all`: accepted tokens over draft tokens"},
    help="Share of draft tokens that were accepted in the last 5 minutes; absent without drafts.",
)

INSTRUMENTS: tuple[Instrument, ...] = (
    *(each for each in globals().values() if isinstance(each, Instrument)),
    *shadow.INSTRUMENTS,
)
"""All that are named above, in their order."""
