"""The whole configuration from its sections (`sections.py`).

Owns how values from flags, environment and file become one `Config`, and finds every mistake in them at once. Reads
no file, no environment variable and no command line itself: `cli` does, and makes its options and the reference's
table from `settings()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, cast, get_type_hints

from ppd_core.fleet.address import parse_url
from ppd_proxy.config.sections import (
    Auth,
    Conversations,
    Discovery,
    Engines,
    Limits,
    Metrics,
    Routing,
    Server,
    Shadow,
)
from ppd_shell.config_error import ConfigError
from ppd_shell.settings import ENV_PREFIX, Setting, Value, describe, from_text, parse

FOREIGN_VARIABLES = ("PPD_CONFIG", "PPD_VLLM_VENV", "PPD_VLLM_VERSION")
"""Variables with our prefix that are not settings: the configuration file's path, and what the scripts read."""

FOREIGN_PREFIXES = ("PPD_PROXY_",)
"""Kubernetes sets PPD_PROXY_SERVICE_HOST and the like in every pod beside a service called ppd-proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; every value is checked."""

    server: Server = field(default_factory=Server)
    routing: Routing = field(default_factory=Routing)
    engines: Engines = field(default_factory=Engines)
    discovery: Discovery = field(default_factory=Discovery)
    auth: Auth = field(default_factory=Auth)
    limits: Limits = field(default_factory=Limits)
    conversations: Conversations = field(default_factory=Conversations)
    metrics: Metrics = field(default_factory=Metrics)
    shadow: Shadow = field(default_factory=Shadow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The value of every setting, where each that is not a default came from, and what is wrong.

    A setting whose given value is wrong holds its default here. Warnings do not keep the proxy from starting.
    """

    values: Mapping[str, Value]
    origins: Mapping[str, str]
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def config(self) -> Config:
        """The configuration, or ConfigError with every mistake."""
        if self.mistakes:
            raise ConfigError(list(self.mistakes))
        sections: dict[str, Any] = {
            name: section(**{f.name: self.values[f.name] for f in fields(section)}) for name, section in _sections()
        }
        return Config(**sections)


def settings() -> tuple[Setting, ...]:
    """Every setting, section by section."""
    return tuple(
        describe(section, f.name, hints[f.name], cast("Value", f.default))
        for section, owner in _sections()
        for hints in [get_type_hints(owner, include_extras=True)]
        for f in fields(owner)
    )


def resolve(
    flags: Mapping[str, object],
    env: Mapping[str, str],
    file: Mapping[str, object] | None = None,
    *,
    file_name: str = "configuration file",
) -> Resolution:
    """What flags over environment over file over defaults give.

    `flags` maps names of settings to what the command line gave: text, a list of texts, or a bool for a switch. An
    empty environment variable counts as not set.
    """
    known = settings()
    mistakes = [*_unknown_variables(known, env), *_unknown_keys(known, file or {}, file_name)]
    values: dict[str, Value] = {}
    origins: dict[str, str] = {}
    for setting in known:
        values[setting.name] = setting.default
        for origin, raw in reversed(list(_given(setting, flags, env, file or {}, file_name))):
            try:
                values[setting.name] = parse(setting, raw)
                origins[setting.name] = origin
            except ConfigError as error:
                mistakes += [f"{origin}: {clause}" for clause in error.mistakes]
    mistakes += _conflicts(values, origins)
    return Resolution(values=values, origins=origins, mistakes=tuple(mistakes), warnings=tuple(_warnings(values)))


def _sections() -> list[tuple[str, Any]]:
    return list(get_type_hints(Config).items())


def _given(
    setting: Setting, flags: Mapping[str, object], env: Mapping[str, str], file: Mapping[str, object], file_name: str
) -> Iterator[tuple[str, object]]:
    """Where a value was given and the raw value, the strongest first. Texts are turned into the setting's type."""
    if flags.get(setting.name) is not None:
        yield setting.flag, from_text(setting, flags[setting.name])
    if text := env.get(setting.variable, ""):
        items = [item.strip() for item in text.split(",")] if setting.is_list else text
        yield setting.variable, from_text(setting, items)
    table = file.get(setting.section)
    if isinstance(table, Mapping) and setting.name in table:
        yield f"{file_name}: {setting.key}", table[setting.name]


def _unknown_variables(known: tuple[Setting, ...], env: Mapping[str, str]) -> Iterator[str]:
    names = [setting.variable for setting in known]
    for name in sorted(env):
        if name.startswith(ENV_PREFIX) and name not in names and name not in FOREIGN_VARIABLES:
            if not name.startswith(FOREIGN_PREFIXES):
                yield f"{name}: no such setting; {_suggestion(name, names)}"


def _unknown_keys(known: tuple[Setting, ...], file: Mapping[str, object], file_name: str) -> Iterator[str]:
    keys = {setting.name: setting.key for setting in known}
    sections = list(dict.fromkeys(setting.section for setting in known))
    for section, table in file.items():
        if section not in sections:
            near_section = _suggestion(f"[{section}]", [f"[{known_section}]" for known_section in sections])
            hint = f"did you mean {keys[section]}?" if section in keys else near_section
            yield f"{file_name}: [{section}] is no section; {hint}"
        elif not isinstance(table, Mapping):
            yield f"{file_name}: {section} is not a table; write its keys under [{section}]"
        else:
            for name in table:
                if keys.get(name) != f"[{section}] {name}":
                    close = get_close_matches(name, list(keys), n=1)
                    near = keys.get(name) or (keys[close[0]] if close else None)
                    own = ", ".join(setting.name for setting in known if setting.section == section)
                    hint = f"did you mean {near}?" if near else f"it has {own}"
                    yield f"{file_name}: [{section}] {name} is no setting; {hint}"


def _suggestion(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else "there is " + ", ".join(names)


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
