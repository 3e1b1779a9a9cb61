"""Settings of one simulated engine, and reading them from TOML."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ppd_shell.config_error import ConfigError
from ppd_sim.model.model import ModelConfig
from ppd_sim.timing import TimingConfig

Role = Literal["prefill", "decode", "aggregated"]
HandoffKind = Literal["nixl", "p2p_nccl", "none"]
MetricNames = Literal["new", "old", "both"]
_Section = TypeVar("_Section")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One simulated engine. Everything defaults to an engine that answers at once and never fails.

    `dies_without_tag` decides whether an untagged generation request ends a P2pNccl engine; None is what vLLM does:
    a stock one dies, one with `is_ppd` (our connector) computes the prompt itself. `keeps_requests` records every
    generation request. `echoes_request_id` is vLLM's --enable-request-id-headers. Connections idle for `keep_alive_s`
    are closed, 0 keeps them (vLLM's server: 5 s). `reasoning_tokens` is how many tokens each chat answer thinks first,
    the last of them the mark that ends it.
    """

    role: Role
    handoff: HandoffKind = "nixl"
    host: str = "127.0.0.1"
    port: int = 0
    model_name: str = "sim"
    adapters: tuple[str, ...] = ()
    max_model_len: int = 32_768
    default_max_tokens: int | None = None
    block_tokens: int = 16
    cache_blocks: int = 65_536
    has_prefix_cache: bool = True
    tokens_per_image: int = 16
    kv_lease_s: float = 30.0
    kv_port: int | None = None
    announce: str | None = None
    announce_interval_s: float = 3.0
    is_ppd: bool = False
    dies_without_tag: bool | None = None
    metric_names: MetricNames = "new"
    keeps_requests: bool = True
    api_key: str | None = None
    echoes_request_id: bool = False
    keep_alive_s: float = 0.0
    reasoning_tokens: int = 0
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    timing: TimingConfig = field(default_factory=TimingConfig)

    def __post_init__(self) -> None:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def dies_untagged(self) -> bool:
        """Whether a generation request without a P2pNccl tag ends this engine, as it ends a stock one."""
        if self.dies_without_tag is not None:
            return self.dies_without_tag
        return self.handoff == "p2p_nccl" and not self.is_ppd and self.role != "aggregated"

    @property
    def has_our_connector(self) -> bool:
        """Whether the engine leaves out what the other one holds, and tells what its transfers cost."""
        return self.handoff == "p2p_nccl" and self.is_ppd

    def _mistakes(self) -> list[str]:
        found: list[str] = []
        choices: dict[str, tuple[str, ...]] = {
            "role": get_args(Role),
            "handoff": get_args(HandoffKind),
            "metric_names": get_args(MetricNames),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                found.append(f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        found += [
            f"{name}: {getattr(self, name)!r} must be at least 1"
            for name in ("max_model_len", "block_tokens", "cache_blocks")
            if getattr(self, name) < 1
        ]
        if self.handoff == "p2p_nccl" and self.role != "aggregated" and self.kv_port is None:
            found.append("kv_port: p2p_nccl needs one, 0 picks a free port")
        if self.announce is not None and self.kv_port is None:
            found.append("kv_port: announce needs one, it is the engine's identity on the discovery socket")
        if self.announce is not None and not self.announce.rpartition(":")[2].isdigit():
            found.append(f"announce: {self.announce!r} must be HOST:PORT")
        return found


def load(path: Path, base: EngineConfig) -> EngineConfig:
    """`base` with the settings of a TOML file over it: top-level keys, and the tables [model] and [timing]."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from error
    mistakes: list[str] = []
    merged = _merge(base, table, "", mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return merged


def _merge(base: _Section, table: Mapping[str, Any], prefix: str, mistakes: list[str]) -> _Section:
    assert is_dataclass(base)
    assert not isinstance(base, type)
    hints = get_type_hints(type(base))
    changes: dict[str, Any] = {}
    known = {item.name for item in fields(base)}
    for name, value in table.items():
        where = prefix + name
        if name not in known:
            mistakes.append(f"{where}: unknown setting, known ones are {', '.join(sorted(known))}")
        elif is_dataclass(getattr(base, name)):
            if isinstance(value, dict):
                changes[name] = _merge(getattr(base, name), value, where + ".", mistakes)
            else:
                mistakes.append(f"{where}: must be a table")
        else:
            converted = tuple(value) if isinstance(value, list) else value
            if _fits(hints[name], converted):
                changes[name] = converted
            else:
                mistakes.append(f"{where}: {value!r} has the wrong type")
    return replace(base, **changes) if not mistakes else base


def _fits(hint: Any, value: Any) -> bool:  # noqa: ANN401 - any annotation, any TOML value
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is types.UnionType:
        return any(_fits(part, value) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
