"""The configuration file of `ppd-acc`: TOML tables whose values stand in for flags that were not given.

    [defaults]        baseline, target, model, api_key, target_api_key, endpoint, headers, timeout, retries,
                      concurrency, noise_floor, temperature, top_p, seed, max_tokens, top_k, profile
    [profiles.NAME]   temperature, top_p, seed, max_tokens, model
    [batch] [kv] [report] [matching] [cost]   of the commands of that name

`ppd-acc.toml`, else `xpyd-acc.toml`. Keys of the published tool that mean nothing here are told, not refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ppd_acc.ask.urls import UNSENDABLE, wrong_in_header, wrong_in_url
from ppd_acc.compare.normalizing import NORMALIZERS
from ppd_shell.settings import ConfigError, is_of
from ppd_shell.sources import read_toml

Kinds = Mapping[str, tuple[type, ...]]
_NUMBER: tuple[type, ...] = (int, float)
_TEXT: tuple[type, ...] = (str,)

_SAMPLING: Kinds = MappingProxyType(
    {"temperature": _NUMBER, "top_p": _NUMBER, "seed": (int,), "max_tokens": (int,), "model": _TEXT}
)
TABLES: Mapping[str, Kinds] = MappingProxyType(
    {
        "defaults": {
            **_SAMPLING,
            "baseline": _TEXT, "target": _TEXT, "api_key": _TEXT, "target_api_key": _TEXT, "endpoint": _TEXT,
            "headers": (dict,), "timeout": _NUMBER, "retries": (int,), "retry_delay": _NUMBER, "concurrency": (int,),
            "noise_floor": (int,), "top_k": (int,), "profile": _TEXT, "rate_limit": _NUMBER, "skip_validation": (bool,),
        },
        "batch": {
            "concurrency": (int,), "dataset": (str, list), "fail_threshold": _NUMBER, "confidence": (bool,),
            "confidence_level": _NUMBER, "deduplicate": (bool,), "cache_dir": _TEXT, "cache_ttl": _NUMBER,
            "warn_truncated": _NUMBER, "csv": _TEXT, "junit_path": _TEXT, "logprob_gap_threshold": _NUMBER,
        },
        "kv": {"max_abs_threshold": _NUMBER, "cosine_threshold": _NUMBER},
        "report": {"output": _TEXT},
        "matching": {
            "normalize_whitespace": (bool,), "ignore_case": (bool,), "numeric_tolerance": _NUMBER,
            "normalizers": (list,),
        },
        "cost": {"input_price_per_m": _NUMBER, "output_price_per_m": _NUMBER},
    }
)  # fmt: skip
_PROFILE: Kinds = MappingProxyType(
    {**_SAMPLING, "retries": (int,), "retry_delay": _NUMBER, "normalize_whitespace": (bool,), "ignore_case": (bool,),
     "numeric_tolerance": _NUMBER}
)  # fmt: skip
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "temperature": (0, 100), "top_p": (1e-9, 1), "max_tokens": (1, 2**31), "timeout": (1e-3, 1e9),
        "retries": (0, 1000), "retry_delay": (0, 1e6), "concurrency": (1, 100_000), "noise_floor": (0, 1_000_000),
        "top_k": (1, 1000), "fail_threshold": (0, 1), "confidence_level": (0.5, 0.999999),
        "seed": (-(2**63), 2**63 - 1), "metrics_port": (0, 65_535),
        "cosine_threshold": (-1, 1), "max_abs_threshold": (0, float("inf")), "cache_ttl": (0, float("inf")),
        "rate_limit": (1e-9, float("inf")), "warn_truncated": (0, 1), "logprob_gap_threshold": (0, float("inf")),
        "numeric_tolerance": (0, float("inf")), "input_price_per_m": (0, float("inf")),
        "output_price_per_m": (0, float("inf")),
    }
)  # fmt: skip
"""Lowest and highest value of a key, in whatever table, and of the flag of that name."""
BUILT_IN_PROFILES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"greedy": {"temperature": 0.0, "top_p": 1.0, "seed": 42}, "stochastic": {"temperature": 0.7, "seed": 42}}
)
ENDPOINTS = ("chat", "completions")
_URL_KEYS = ("baseline", "target")
FILE_NAMES = ("ppd-acc.toml", "xpyd-acc.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`tables` is the file's content, checked; `source` the file, None without one."""

    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: Path | None = None

    def get(self, table: str, key: str) -> Any:
        """A value of the file; None where it has none."""
        return self.tables.get(table, {}).get(key)

    @property
    def profiles(self) -> dict[str, Mapping[str, Any]]:
        """The built-in profiles and the file's, which win."""
        return {**BUILT_IN_PROFILES, **self.tables.get("profiles", {})}

    def profile(self, name: str) -> Mapping[str, Any]:
        """Raises ConfigError for an unknown one."""
        if name not in self.profiles:
            known = ", ".join(sorted(self.profiles))
            raise ConfigError([f"--profile {name}: no such profile; there are {known}"])
        return self.profiles[name]


def load_settings(path: str | None, directory: Path) -> Settings:
    """The file at `path`, else the one in the directory, else nothing. Raises ConfigError."""
    if path is None:
        file = next((directory / name for name in FILE_NAMES if (directory / name).is_file()), None)
        if file is None:
            return Settings()
    else:
        file = directory / path
    tables = read_tables(file)
    mistakes = [f"{file}: {mistake}" for mistake in mistakes_of(tables)]
    if mistakes:
        raise ConfigError(mistakes)
    return Settings(tables=tables, source=file)


def read_tables(path: Path) -> dict[str, Any]:
    """The file as TOML. Raises ConfigError."""
    try:
        return read_toml(path)
    except OSError as error:
        raise ConfigError([f"--config {path}: {error.strerror or error}"]) from None


def mistakes_of(tables: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each value that has the wrong type, is out of range, or names what does not exist."""
    for name, table in tables.items():
        if name == "profiles":
            for profile, values in table.items() if isinstance(table, dict) else ():
                yield from _mistakes(f"profiles.{profile}", values, _PROFILE)
            if not isinstance(table, dict):
                yield f"profiles is {table!r}; it must be a table of tables"
        elif name in TABLES:
            yield from _mistakes(name, table, TABLES[name])
    matching = tables.get("matching")
    normalizers = matching.get("normalizers") if isinstance(matching, dict) else None
    for each in normalizers if isinstance(normalizers, list) else ():
        if each not in NORMALIZERS:
            yield f"matching.normalizers has {each!r}; there are {', '.join(NORMALIZERS)}"
    defaults = tables.get("defaults")
    if isinstance(defaults, dict):
        yield from _mistakes_of_defaults(defaults, tables.get("profiles"))


def _mistakes_of_defaults(defaults: Mapping[str, Any], profiles: Any) -> Iterator[str]:
    """What the right type alone does not make right: URLs, and names that must exist."""
    for key in _URL_KEYS:
        url = defaults.get(key)
        wrong = wrong_in_url(url) if isinstance(url, str) else None
        if wrong is not None:
            yield f"defaults.{key} is {url!a}: {wrong}; it must be a URL such as http://engine:8000"
    known = {"endpoint": ENDPOINTS, "profile": (*BUILT_IN_PROFILES, *(profiles if isinstance(profiles, dict) else ()))}
    for key, names in known.items():
        value = defaults.get(key)
        if isinstance(value, str) and value not in names:
            yield f"defaults.{key} is {value!r}; it must be one of {', '.join(names)}"
    for key in ("api_key", "target_api_key", "model"):
        value = defaults.get(key)
        if isinstance(value, str) and UNSENDABLE.search(value):
            yield f"defaults.{key} has a control character; it must be one line"
    headers = defaults.get("headers")
    for name, value in headers.items() if isinstance(headers, dict) else ():
        wrong = wrong_in_header(str(name), str(value))
        if wrong is not None:
            yield f"defaults.headers: {wrong}"


def unknown_of(tables: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each key that means nothing here."""
    for name, table in tables.items():
        if name == "profiles":
            for profile, values in table.items() if isinstance(table, dict) else ():
                yield from _unknown(f"profiles.{profile}", values, _PROFILE)
        elif name not in TABLES:
            yield f"[{name}] means nothing to ppd-acc{_hint(name, (*TABLES, 'profiles'))}"
        else:
            yield from _unknown(name, table, TABLES[name])


def _unknown(name: str, table: Any, kinds: Kinds) -> Iterator[str]:
    for key in table if isinstance(table, dict) else ():
        if key not in kinds:
            yield f"{name}.{key} means nothing to ppd-acc{_hint(key, tuple(kinds))}"


def _hint(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _mistakes(name: str, table: Any, kinds: Kinds) -> Iterator[str]:
    if not isinstance(table, dict):
        yield f"{name} is {table!r}; it must be a table"
        return
    for key, value in table.items():
        allowed = kinds.get(key)
        if allowed is None:
            continue
        if not any(is_of(kind, value) for kind in allowed):
            wanted = " or ".join(kind.__name__ for kind in allowed)
            yield f"{name}.{key} is {value!r} ({type(value).__name__}); it must be {wanted}"
        elif key in RANGES and is_of(float, value):
            low, high = RANGES[key]
            if not low <= value <= high:
                yield f"{name}.{key} is {value!r}; it must be from {low:g} to {high:g}"
