"""What a command of `ppd-acc` is: its options, its work, what it tells people and machines, how it ends.

A command is a module in `cli/<subject>/` with `Options` and `run`; `registry.py` lists them all. It returns a `Result`
or raises `Mistake` (2) or `Trouble` (3); printing, JSON and exit codes are `main.py`'s.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ppd_acc.cli.given import Given
from ppd_acc.cli.options import add_options, read_options
from ppd_acc.outcome import Result
from ppd_acc.surroundings import Surroundings

OptionsT = TypeVar("OptionsT")
Ended = Result | Coroutine[Any, Any, Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`name` is the one that `registry.py` lists, with what it does. `options` makes a frozen value of what is given,
    and raises Mistake; `run` gets that value, and may be a coroutine function."""

    name: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    options: Callable[[Given], Any]
    run: Callable[[Any, Surroundings], Ended]


def command(name: str, kind: type[OptionsT], run: Callable[[OptionsT, Surroundings], Ended]) -> Command:
    """A command whose options say their flags themselves."""
    options = partial(read_options, kind)
    return Command(name=name, add_arguments=partial(add_options, kind), options=options, run=run)
