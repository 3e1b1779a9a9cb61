"""What a command of `ppd-acc` is: its arguments, its work, what it tells people and machines, how it ends.

A command is one module in `commands/` with one or more `Command` values; `registry.py` lists them all. It returns a
`Result` or raises `Mistake` (2) or `Trouble` (3); printing, JSON and exit codes are `main.py`'s.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from ppd_proxy.acc.settings import Settings


class Exit(IntEnum):
    """How a command ends, the same for every command. `PASS` is also what describing commands end with."""

    PASS = 0
    DIFFERENT = 1
    USAGE = 2
    INFRASTRUCTURE = 3
    INCONCLUSIVE = 4


class Mistake(Exception):
    """A mistake in usage, configuration or input: ends with 2. The message names field, value and what is right."""


class Trouble(Exception):
    """An engine or a file system that did not do its part: ends with 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`data` is what `--json` writes: plain JSON types, msgspec Structs or dataclasses; `main` adds kind and version.
    `view` is what people read, in order. `notes` are warnings, shown in both."""

    exit: Exit
    data: Mapping[str, Any]
    view: tuple[RenderableType, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a command gets beside its arguments. `console` is standard output, `errors` standard error, where progress
    goes; `wall_clock` gives Unix seconds; `directory` is what relative paths are relative to."""

    settings: Settings
    console: Console
    errors: Console
    wall_clock: Callable[[], float]
    directory: Path = field(default_factory=Path)


Run = Callable[[argparse.Namespace, Context], Result | Coroutine[Any, Any, Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`name` is the one that `registry.py` lists, with what it does. `run` may be a coroutine function."""

    name: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Run
