"""Every setting of the proxy: one frozen section per concern, each field with its unit, limits and help text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from ppd_core.fleet.engine import HandoffName
from ppd_core.policy.plan import Mode
from ppd_proxy.config.forms import NETWORK, URL
from ppd_shell.settings import SECRET, Note

HandoffChoice = Literal["auto", HandoffName]
KvDtype = Literal["float32", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"]
LogLevel = Literal["debug", "info", "warning", "error"]
ShadowMethod = Literal["score", "replay"]
Storage = Literal["none", "hashes", "tokens", "text"]
GuardMode = Literal["off", "alert", "act"]

_SECONDS = Note(help="", unit="seconds", low=0.001)
_PORT = Note(help="", low=0, high=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The side that clients see."""

    host: Annotated[str, Note(help="address to listen on")] = "0.0.0.0"
    port: Annotated[int, replace(_PORT, help="TCP port to listen on (0: any free port)")] = 10001
    max_body_bytes: Annotated[int, Note(help="larger request bodies get 413", unit="bytes", low=1)] = 25165824
    max_json_depth: Annotated[
        int, Note(help="levels of arrays and objects in a request body; more get 400", low=1, high=512)
    ] = 128
    max_json_values: Annotated[
        int, Note(help="values in a request body, arrays, objects and their members count 8 each; more get 400", low=1)
    ] = 3000000
    max_answer_bytes: Annotated[
        int, Note(help="an engine's answer that is no stream; a larger one gets 502", unit="bytes", low=1)
    ] = 67108864
    max_buffered_bytes: Annotated[
        int, Note(help="requests and answers held in memory; beyond it new requests get 503", unit="bytes", low=1)
    ] = 536870912
    max_head_bytes: Annotated[
        int, Note(help="longer request lines get 414, larger heads (line and headers) 431", unit="bytes", low=1024)
    ] = 65536
    keep_alive_s: Annotated[float, replace(_SECONDS, help="how long an idle client connection stays open")] = 75.0
    head_timeout_s: Annotated[float, replace(_SECONDS, help="a request's head that takes longer gets 408")] = 10.0
    body_timeout_s: Annotated[
        float, replace(_SECONDS, help="a request's body of which nothing comes for so long gets 408")
    ] = 30.0
    write_timeout_s: Annotated[
        float, replace(_SECONDS, help="a client that takes nothing of its answer for so long is cut off")
    ] = 60.0
    drain_s: Annotated[
        float,
        Note(help="after TERM: requests are still taken while /ready is 503 already", unit="seconds", low=0),
    ] = 5.0
    shutdown_grace_s: Annotated[
        float, Note(help="after that: how long answers in flight may take to end", unit="seconds", low=0)
    ] = 120.0
    log_level: Annotated[LogLevel, Note(help="least severe level that is logged")] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How requests are served."""

    mode: Annotated[Mode, Note(help="pd: always prefill then decode; ppd: direct to the home from turn 2 on")] = "ppd"
    handoff: Annotated[
        HandoffChoice,
        Note(help="how KV moves; auto: p2p_nccl for engines that announced themselves, else nixl; none: shared store"),
    ] = "auto"
    trust_direct: Annotated[
        bool, Note(help="every p2p_nccl decode engine takes direct requests (stock ones die of them)")
    ] = False
    strip_field: Annotated[tuple[str, ...], Note(help="JSON field removed from every request")] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Engines known from the start."""

    prefill: Annotated[tuple[str, ...], Note(help="URL of a prefill engine", form=URL)] = ()
    decode: Annotated[tuple[str, ...], Note(help="URL of a decode engine", form=URL)] = ()
    aggregated: Annotated[tuple[str, ...], Note(help="URL of an unsplit engine", form=URL)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """How engines are found and watched."""

    discovery_host: Annotated[str, Note(help="address to listen on for P2pNccl announcements (ZMQ)")] = "0.0.0.0"
    discovery_port: Annotated[int, replace(_PORT, help="TCP port for P2pNccl announcements (0: off)")] = 30001
    discovery_allow: Annotated[
        tuple[str, ...],
        Note(
            help="network that announcements may come from and name (not set: loopback and this host's own networks)",
            form=NETWORK,
        ),
    ] = ()
    max_announced_engines: Annotated[
        int, Note(help="engines beyond this that announce themselves are ignored", low=1)
    ] = 256
    trust_announced: Annotated[
        bool, Note(help="engines that announced themselves get the engine key, and clients' own keys and cookies")
    ] = False
    probe_interval_s: Annotated[float, replace(_SECONDS, help="time between two health probes of an engine")] = 5.0
    probe_timeout_s: Annotated[float, replace(_SECONDS, help="a probe without an answer by then has failed")] = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who may do what. A key that is not set asks nobody for one."""

    api_key: Annotated[tuple[str, ...], Note(help="key that clients must send, one of these", form=SECRET)] = field(
        default=(), repr=False
    )
    engine_api_key: Annotated[
        str | None, Note(help="key sent to the engines (not set: the client's own header is forwarded)", form=SECRET)
    ] = field(default=None, repr=False)
    admin_key: Annotated[
        str | None, Note(help="key for the admin endpoints (not set: they answer loopback only)", form=SECRET)
    ] = field(default=None, repr=False)
    register_key: Annotated[
        str | None, Note(help="key that lets other hosts register engines, nothing else", form=SECRET)
    ] = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long the proxy waits for engines, and how often it tries again."""

    connect_timeout_s: Annotated[float, replace(_SECONDS, help="connecting to an engine")] = 10.0
    prefill_timeout_s: Annotated[float, replace(_SECONDS, help="the whole prefill leg")] = 600.0
    first_token_timeout_s: Annotated[float, replace(_SECONDS, help="the answering engine's first content")] = 600.0
    idle_timeout_s: Annotated[float, replace(_SECONDS, help="silence in the middle of an answer")] = 300.0
    retries: Annotated[
        int | None,
        Note(help="most retries of a request that failed before the client got a byte (not set: all engines)", low=0),
    ] = None
    release_grace_s: Annotated[
        float, Note(help="time to free a prefill engine's KV after the client left", unit="seconds", low=0)
    ] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversations:
    """How much history is remembered."""

    max_conversations: Annotated[int, Note(help="the least recently used beyond this are forgotten", low=1)] = 100000
    conversation_ttl_s: Annotated[float, replace(_SECONDS, help="a conversation without a turn is forgotten then")] = (
        14400.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What is measured beside the requests themselves."""

    scrape_interval_s: Annotated[
        float, Note(help="time between two reads of an engine's /metrics (0: off)", unit="seconds", low=0)
    ] = 5.0
    kv_bytes_per_token: Annotated[
        int | None, Note(help="KV cache of one token, for estimating transfers", unit="bytes", low=1)
    ] = None
    model_config: Annotated[str | None, Note(help="a model's config.json that kv_bytes_per_token is computed from")] = (
        None
    )
    kv_cache_dtype: Annotated[KvDtype | None, Note(help="type of the KV cache if not the one in model_config")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """The accuracy check of a sample of the live requests against an unsplit engine. Off without a baseline."""

    baseline: Annotated[tuple[str, ...], Note(help="URL of an unsplit engine to hold answers against", form=URL)] = ()
    baseline_api_key: Annotated[
        str | None, Note(help="key sent to the baselines; clients' keys never are", form=SECRET)
    ] = field(default=None, repr=False)
    shadow_rate: Annotated[float, Note(help="share of the requests that are checked", low=0, high=1)] = 0.01
    shadow_method: Annotated[
        ShadowMethod, Note(help="score: one prefill, any temperature; replay: the request again, greedy or seeded")
    ] = "score"
    shadow_top_logprobs: Annotated[
        int,
        Note(help="likeliest tokens of each place to compare; engines must allow one more (0: none)", low=0, high=20),
    ] = 0
    shadow_concurrency: Annotated[int, Note(help="checks at the same time", low=1, high=1024)] = 4
    shadow_queue: Annotated[int, Note(help="samples that wait; more are dropped and counted", low=1)] = 256
    shadow_max_body_bytes: Annotated[int, Note(help="larger requests are not checked", unit="bytes", low=1)] = 1048576
    shadow_timeout_s: Annotated[float, replace(_SECONDS, help="a check that takes longer is dropped")] = 60.0
    shadow_noise_share: Annotated[
        float, Note(help="noise measurements (baseline against itself) per checked sample", low=0, high=10)
    ] = 0.2
    shadow_noise_samples: Annotated[
        int, Note(help="noise measurements of a kind of request before any of it is judged", low=50, high=10000)
    ] = 300
    shadow_false_alarms: Annotated[
        float, Note(help="share of days that may have a false red", low=0.0001, high=0.5)
    ] = 0.01
    shadow_tolerance: Annotated[
        float, Note(help="green means: fewer answers than this share are beyond the noise", low=0.001, high=0.5)
    ] = 0.05
    journal: Annotated[str | None, Note(help="SQLite file of the checked samples (not set: none is kept)")] = None
    journal_storage: Annotated[
        Storage, Note(help="what of a sample is kept: nothing, hashes of its tokens, tokens and logprobs, or text too")
    ] = "tokens"
    journal_max_rows: Annotated[int, Note(help="older samples beyond this are forgotten", low=1)] = 100000
    journal_max_age_s: Annotated[float, replace(_SECONDS, help="older samples are forgotten")] = 2592000.0
    guard: Annotated[
        GuardMode, Note(help="on a red verdict: off: nothing; alert: say what would be done; act: do it")
    ] = "alert"
    guard_cooldown_s: Annotated[float, replace(_SECONDS, help="rest between two actions on the same thing")] = 600.0
    guard_retry_s: Annotated[
        float, Note(help="until something taken out of use is tried again (0: a person decides)", unit="seconds", low=0)
    ] = 0.0
