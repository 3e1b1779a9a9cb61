"""`ppd-proxy check`: prints the effective configuration as TOML, where each value came from, and every mistake."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator

from ppd_proxy.cli import serve
from ppd_proxy.config import config
from ppd_shell.settings import MASK, Setting, Value
from ppd_shell.sources import Resolution

KUBERNETES_GRACE_S = 30
"""What a pod has after TERM unless its terminationGracePeriodSeconds says otherwise."""
LAST_WORDS_S = 5
"""For error events and the last log lines to leave."""


def run(args: argparse.Namespace, usage_mistakes: list[str]) -> int:
    """The configuration on standard output, mistakes and warnings on standard error; 2 where there is a mistake."""
    resolution = serve.read_configuration(args, os.environ)
    print("\n".join(render(resolution)))
    mistakes = [*usage_mistakes, *resolution.mistakes]
    serve.report(mistakes, resolution.warnings)
    return 2 if mistakes else 0


def render(resolution: Resolution) -> Iterator[str]:
    """The configuration as TOML lines. Secrets are masked, values that nobody gave carry no comment."""
    section = ""
    for setting in config.settings():
        if setting.section != section:
            yield f"\n[{setting.section}]" if section else f"[{setting.section}]"
            section = setting.section
        yield _line(setting, resolution.values[setting.name], resolution.origins.get(setting.name))
        if setting.name == "shutdown_grace_s":
            yield from _kubernetes(resolution)


def _kubernetes(resolution: Resolution) -> Iterator[str]:
    """What a pod must grant so that its end is the proxy's own."""
    drain_s, grace_s = resolution.values["drain_s"], resolution.values["shutdown_grace_s"]
    if isinstance(drain_s, float) and isinstance(grace_s, float):
        needed_s = math.ceil(drain_s + grace_s + LAST_WORDS_S)
        if needed_s > KUBERNETES_GRACE_S:
            wish = f"set terminationGracePeriodSeconds to {needed_s}"
            yield f"# Kubernetes kills {KUBERNETES_GRACE_S} s after TERM: {wish}"


def _line(setting: Setting, value: Value, origin: str | None) -> str:
    if value is None:
        return f"# {setting.name}: not set"
    if origin == serve.COMPUTED:
        return f"# {setting.name} = {_toml(setting, value)}  # {origin}"
    return f"{setting.name} = {_toml(setting, value)}" + (f"  # from {origin}" if origin else "")


def _toml(setting: Setting, value: Value) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(setting, item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(MASK if setting.is_secret else value, ensure_ascii=False)
    return repr(value)
