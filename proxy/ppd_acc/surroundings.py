"""What a command gets beside its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a command gets beside its arguments. `console` is standard output, `errors` standard error, where progress
    goes; `wall_clock` gives Unix seconds; `directory` is what relative paths are relative to."""

    console: Console
    errors: Console
    wall_clock: Callable[[], float]
    directory: Path = field(default_factory=Path)
