"""Settings of one simulated engine, and reading them from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from ppd_shell.settings import ConfigError, Note, Setting, is_of, settings_of
from ppd_shell.sources import read_toml
from ppd_sim.model.model import ModelConfig
from ppd_sim.timing import TimingConfig

Role = Literal["prefill", "decode", "aggregated"]
HandoffKind = Literal["nixl", "p2p_nccl", "none"]
MetricNames = Literal["new", "old", "both"]
_SOME = Note(low=1)
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
    max_model_len: Annotated[int, _SOME] = 32_768
    default_max_tokens: int | None = None
    block_tokens: Annotated[int, _SOME] = 16
    cache_blocks: Annotated[int, _SOME] = 65_536
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
        mistakes: list[str] = []
        for setting in _own(type(self)):
            value = getattr(self, setting.name)
            if setting.choices and value not in setting.choices:
                mistakes.append(f"{setting.name}: {value!r} is not one of {', '.join(setting.choices)}")
            if setting.note.low is not None and value < setting.note.low:
                mistakes.append(f"{setting.name}: {value!r} must be at least {setting.note.low:g}")
        if self.handoff == "p2p_nccl" and self.role != "aggregated" and self.kv_port is None:
            mistakes.append("kv_port: p2p_nccl needs one, 0 picks a free port")
        if self.announce is not None and self.kv_port is None:
            mistakes.append("kv_port: announce needs one, it is the engine's identity on the discovery socket")
        if self.announce is not None and not self.announce.rpartition(":")[2].isdigit():
            mistakes.append(f"announce: {self.announce!r} must be HOST:PORT")
        return mistakes


def load(path: Path, base: EngineConfig) -> EngineConfig:
    """`base` with the settings of a TOML file over it: top-level keys, and the tables [model] and [timing]."""
    mistakes: list[str] = []
    merged = _merge(base, read_toml(path), "", mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return merged


def _merge(base: _Section, table: Mapping[str, Any], prefix: str, mistakes: list[str]) -> _Section:
    assert is_dataclass(base)
    assert not isinstance(base, type)
    known = {setting.name: setting for setting in _own(type(base))}
    tables = {item.name for item in fields(base)} - known.keys()
    changes: dict[str, Any] = {}
    for name, value in table.items():
        where = prefix + name
        if name in tables and isinstance(value, dict):
            changes[name] = _merge(getattr(base, name), value, where + ".", mistakes)
        elif name in tables:
            mistakes.append(f"{where}: must be a table")
        elif name not in known:
            mistakes.append(f"{where}: unknown setting, known ones are {', '.join(sorted((*known, *tables)))}")
        elif _fits(known[name], value):
            changes[name] = tuple(value) if known[name].is_list else value
        else:
            mistakes.append(f"{where}: {value!r} has the wrong type")
    return replace(base, **changes) if not mistakes else base


def _own(owner: type) -> list[Setting]:
    """Without those of its tables."""
    return [setting for setting in settings_of(owner) if not setting.section]


def _fits(setting: Setting, value: object) -> bool:
    if setting.is_list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value in setting.choices if setting.choices else is_of(setting.type, value)
