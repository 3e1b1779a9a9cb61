"""What a command gets beside its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ppd_proxy.acc.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a command gets beside its arguments. `console` is standard output, `errors` standard error, where progress
    goes; `wall_clock` gives Unix seconds; `directory` is what relative paths are relative to."""

    settings: Settings
    console: Console
    errors: Console
    wall_clock: Callable[[], float]
    directory: Path = field(default_factory=Path)
