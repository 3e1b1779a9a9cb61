"""What the user gave: the flags of the line over the configuration file. The only one that reads both.

A flag that is given wins, then the profile, then the file's [defaults], then the built-in value.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ppd_acc.ask.access import Access, Endpoint, Sampling
from ppd_acc.ask.urls import UNSENDABLE, wrong_in_header, wrong_in_url
from ppd_acc.cli.settings import ENDPOINTS, Settings
from ppd_acc.outcome import Mistake

_BUILT_IN: Mapping[str, Any] = MappingProxyType(
    {
        "temperature": 0.0, "top_p": 1.0, "seed": 42, "max_tokens": 64, "top_k": 5, "endpoint": "chat",
        "timeout": 120.0, "retries": 3, "retry_delay": 0.5, "concurrency": 8,
    }
)  # fmt: skip


class Given:
    """Read-only. `directory` is what relative paths are relative to."""

    def __init__(self, flags: argparse.Namespace, settings: Settings, directory: Path) -> None:
        self._flags: Mapping[str, Any] = MappingProxyType(vars(flags))
        self.settings = settings
        self.directory = directory

    def flag(self, name: str) -> Any:
        """What the line says, a list as a tuple; None where it does not, or where the command has no such flag."""
        value = self._flags.get(name)
        return tuple(value) if isinstance(value, list) else value

    def option(self, name: str, default: Any = None, table: str = "defaults") -> Any:
        """The flag, else the file's value, else `default`."""
        values = (self.flag(name), self.settings.get(table, name))
        return next((value for value in values if value is not None), default)

    def profile(self) -> tuple[str | None, Mapping[str, Any]]:
        """The name and the settings of the profile that was chosen. Raises ConfigError for an unknown one."""
        name = self.option("profile")
        return name, self.settings.profile(name) if name is not None else {}

    def sampling(self) -> Sampling:
        """Raises ConfigError for an unknown profile."""
        name, profile = self.profile()

        def value(key: str) -> Any:
            given = self.flag(key)
            return given if given is not None else profile.get(key, self.option(key, _BUILT_IN[key]))

        return Sampling(
            temperature=float(value("temperature")),
            top_p=float(value("top_p")),
            seed=value("seed"),
            max_tokens=value("max_tokens"),
            top_k=value("top_k"),
            profile=name,
        )

    def access(self) -> Access:
        """Raises Mistake for an endpoint that does not exist, and for a header, a key or a model that cannot be
        sent."""
        _, profile = self.profile()
        endpoint = self.option("endpoint", _BUILT_IN["endpoint"])
        if endpoint not in ENDPOINTS:
            raise Mistake(f"defaults.endpoint is {endpoint!r}; it must be chat or completions")
        key = self.option("api_key", os.environ.get("PPD_ACC_API_KEY") or os.environ.get("XPYD_ACC_API_KEY"))
        if key is not None and UNSENDABLE.search(key):
            raise Mistake("--api-key (or api_key, or PPD_ACC_API_KEY) has a control character; it must be one line")
        target_key = self.option("target_api_key", os.environ.get("PPD_ACC_TARGET_API_KEY"))
        if target_key is not None and UNSENDABLE.search(target_key):
            raise Mistake("--target-api-key (or PPD_ACC_TARGET_API_KEY) has a control character; it must be one line")
        model = self.option("model", profile.get("model"))
        if model is not None and UNSENDABLE.search(model):
            raise Mistake(f"--model is {model!a}; it must be UTF-8 without control characters")
        return Access(
            model=model,
            api_key=key,
            target_api_key=target_key,
            headers=self._headers(),
            endpoint=cast("Endpoint", endpoint),
            timeout_s=float(self.option("timeout", _BUILT_IN["timeout"])),
            retries=self.option("retries", _BUILT_IN["retries"]),
            retry_delay_s=float(self.option("retry_delay", _BUILT_IN["retry_delay"])),
            concurrency=self.option("concurrency", _BUILT_IN["concurrency"]),
        )

    def needed(self, name: str) -> str:
        """A URL from the flag or the file. Raises Mistake where neither has it, or where it is no URL."""
        url = self.option(name)
        flag = "--" + name.replace("_", "-")
        if url is None:
            raise Mistake(f"{flag} is missing; give a URL such as http://engine:8000, or [defaults] {name} in the file")
        return url_of(flag, url)

    def url(self, name: str) -> str | None:
        """What the flag says, if it is given. Raises Mistake where it is no URL."""
        url = self.flag(name)
        return None if url is None else url_of("--" + name.replace("_", "-"), url)

    def path(self, name: str) -> Path | None:
        """The file that the flag names, if it is given."""
        file = self.flag(name)
        return None if file is None else self.directory / file

    def _headers(self) -> dict[str, str]:
        headers = {str(name): str(value) for name, value in (self.settings.get("defaults", "headers") or {}).items()}
        for header in self.flag("header") or ():
            name, colon, value = header.partition(":")
            if not colon or not name.strip():
                raise Mistake(f"--header {name!a}: it must be 'NAME: VALUE'")
            headers[name.strip()] = value.strip()
        for name, value in headers.items():
            wrong = wrong_in_header(name, value)
            if wrong is not None:
                raise Mistake(wrong)
        return headers


def url_of(flag: str, url: str) -> str:
    """The URL without a trailing slash or /v1. Raises Mistake."""
    wrong = wrong_in_url(url)
    if wrong is not None:
        raise Mistake(f"{flag} is {url!a}: {wrong}; it must be a URL such as http://engine:8000")
    return url.rstrip("/").removesuffix("/v1")
