"""What a command of `ppd-acc` is: its arguments, its work, what it tells people and machines, how it ends.

A command is one module in `commands/` with one or more `Command` values; `registry.py` lists them all. It returns a
`Result` or raises `Mistake` (2) or `Trouble` (3); printing, JSON and exit codes are `main.py`'s.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Result
from ppd_acc.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Surroundings):
    """What a command gets beside its arguments."""

    settings: Settings


Run = Callable[[argparse.Namespace, Context], Result | Coroutine[Any, Any, Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`name` is the one that `registry.py` lists, with what it does. `run` may be a coroutine function."""

    name: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Run
