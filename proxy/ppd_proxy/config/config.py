"""The whole configuration from its sections (`sections.py`), and what its settings must be beside each other.

Reads no file, no environment variable and no command line itself: `cli` does, and makes its options and the reference's
table from `settings()`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ppd_core.fleet.address import parse_url
from ppd_proxy.config import sections
from ppd_shell.settings import Setting, Value, settings_of
from ppd_shell.sources import Resolution, Sources

FOREIGN = re.compile(r"PPD_(CONFIG|VLLM_VENV|VLLM_VERSION|PROXY_.*)", re.DOTALL)
"""Variables with our prefix that are no settings: the configuration file's path, what the scripts read, and
PPD_PROXY_SERVICE_HOST and the like, which Kubernetes sets in every pod beside a service called ppd-proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; every value is checked."""

    server: sections.Server = field(default_factory=sections.Server)
    routing: sections.Routing = field(default_factory=sections.Routing)
    engines: sections.Engines = field(default_factory=sections.Engines)
    discovery: sections.Discovery = field(default_factory=sections.Discovery)
    auth: sections.Auth = field(default_factory=sections.Auth)
    limits: sections.Limits = field(default_factory=sections.Limits)
    conversations: sections.Conversations = field(default_factory=sections.Conversations)
    metrics: sections.Metrics = field(default_factory=sections.Metrics)
    shadow: sections.Shadow = field(default_factory=sections.Shadow)


def settings() -> tuple[Setting, ...]:
    """Every setting, section by section."""
    return tuple(settings_of(Config))


def resolve(
    flags: Mapping[str, object],
    env: Mapping[str, str],
    file: Mapping[str, object] | None = None,
    *,
    file_name: str = "configuration file",
) -> Resolution:
    """What the sources give, with the mistakes and warnings that only several settings together make."""
    sources = Sources(flags=flags, env=env, file=file or {}, file_name=file_name, foreign=FOREIGN)
    resolution = sources.resolve(settings())
    mistakes = (*resolution.mistakes, *_conflicts(resolution.values, resolution.origins))
    return replace(resolution, mistakes=mistakes, warnings=tuple(_warnings(resolution.values)))


def _conflicts(values: Mapping[str, Value], origins: Mapping[str, str]) -> Iterator[str]:
    """Mistakes in values that are right one by one."""
    roles: dict[str, str] = {}
    for role in ("prefill", "decode", "aggregated"):
        for url in _urls(values, role):
            engine_id = parse_url(url)[0]
            first = roles.setdefault(engine_id, role)
            if first != role:
                other = f"{engine_id} is also a {first} engine ({origins[first]})"
                yield f"{origins[role]}: {url!r}: {other}; give each engine one role"
    for url in _urls(values, "baseline"):
        role = roles.get(parse_url(url)[0], "aggregated")
        if role != "aggregated":
            yield f"{origins['baseline']}: {url!r} is also a {role} engine ({origins[role]}); a baseline is not split"
    if values["port"] and values["port"] == values["discovery_port"]:
        origin = origins.get("discovery_port") or origins["port"]
        yield f"{origin}: port and discovery_port are both {values['port']}; give each its own"
    if values["kv_bytes_per_token"] and values["model_config"]:
        yield (
            f"{origins['model_config']}: kv_bytes_per_token is given too ({origins['kv_bytes_per_token']}); give one"
        )
    yield from _shared_keys(values, origins)


def _shared_keys(values: Mapping[str, Value], origins: Mapping[str, str]) -> Iterator[str]:
    """Keys that open more than their holders should have opened."""
    for name, other, consequence in (
        ("admin_key", "api_key", "every client could administer the proxy"),
        ("admin_key", "register_key", "every host that registers engines could administer the proxy"),
        ("admin_key", "engine_api_key", "every engine is told the admin key"),
        ("admin_key", "baseline_api_key", "every baseline is told the admin key"),
        ("register_key", "api_key", "every client could register engines and get the others' requests"),
    ):
        if _keys(values, name) & _keys(values, other):
            yield f"{origins[name]}: the same key as {other} ({origins[other]}): {consequence}; give each its own"


def _keys(values: Mapping[str, Value], name: str) -> set[str]:
    given = values[name]
    return set(given) if isinstance(given, tuple) else {given} if isinstance(given, str) else set()


def _warnings(values: Mapping[str, Value]) -> Iterator[str]:
    has_route = (_urls(values, "prefill") and _urls(values, "decode")) or _urls(values, "aggregated")
    if not has_route and not values["discovery_port"]:
        yield (
            "no prefill and decode engine, no aggregated engine, and discovery_port is 0: "
            "nothing to route to until engines register through POST /engines"
        )
    yield from _announced_warnings(values)
    if _keys(values, "engine_api_key") & _keys(values, "api_key"):
        yield "engine_api_key is also one of api_key: a client that reaches an engine could ask it without the proxy"
    yield from _shadow_warnings(values)


def _announced_warnings(values: Mapping[str, Value]) -> Iterator[str]:
    if values["discovery_port"] and values["trust_announced"]:
        return
    is_any_named = any(_urls(values, role) for role in ("prefill", "decode", "aggregated"))
    if values["engine_api_key"] and values["discovery_port"] and not is_any_named:
        yield "engine_api_key is shown to no engine that announces itself (trust_announced), and no other is named"
    if values["handoff"] == "p2p_nccl" and _urls(values, "decode"):
        yield (
            "handoff is p2p_nccl, and engines that are named by URL have no KV address: leave them to announce "
            "themselves, register them with their zmq_address, or set trust_announced"
        )


def _shadow_warnings(values: Mapping[str, Value]) -> Iterator[str]:
    if not _urls(values, "baseline"):
        for name in ("journal", "baseline_api_key"):
            if values[name]:
                yield f"{name} is set and baseline is not: no answer is checked"
    elif values["guard"] == "act" and not values["shadow_rate"]:
        yield "guard is act and shadow_rate is 0: nothing is sampled, so the guard never acts"


def _urls(values: Mapping[str, Value], role: str) -> tuple[str, ...]:
    urls = values[role]
    return urls if isinstance(urls, tuple) else ()
