"""Running a command of ppd-acc in the test's own loop."""

from __future__ import annotations

import argparse
import inspect
import io
import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ppd_acc.cli.command import Command
from ppd_acc.cli.given import Given
from ppd_acc.cli.registry import COMMANDS
from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Result
from ppd_acc.surroundings import Surroundings
from ppd_acc.views import is_verbatim, shown


def command_of(name: str) -> Command:
    (found,) = [listed for listed in COMMANDS if listed.name == name]
    return found.load()


def surroundings(at: Path | None = None) -> Surroundings:
    """Nobody sees what is printed; `at` is the working directory."""
    return Surroundings(
        console=Console(file=io.StringIO(), width=160),
        errors=Console(file=io.StringIO(), width=160),
        wall_clock=lambda: 1_800_000_000.0,
        directory=at or Path(),
    )


async def run_command(name: str, *arguments: str, settings: Settings | None = None, at: Path | None = None) -> Result:
    """Parse and run, without what `main` adds: mistakes and troubles are raised."""
    command = command_of(name)
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    command.add_arguments(parser)
    parser.set_defaults(json="-", quiet=False, verbose=0, config=None)
    args = parser.parse_args(arguments)
    options = command.options(Given(args, settings or Settings(), at or Path()))
    result = command.run(options, surroundings(at))
    if inspect.isawaitable(result):
        result = await result
    assert isinstance(result, Result)
    return result


async def run_line(name: str, line: str) -> Result:
    """The same with the arguments as a shell has them: '--prompt "a b"'."""
    return await run_command(name, *shlex.split(line))


def lines_of(result: Result) -> Iterator[str]:
    """What people read, as plain text."""
    console = Console(file=None, width=160, highlight=False)
    with console.capture() as captured:
        for part in result.view:
            console.print(shown(part), soft_wrap=is_verbatim(part))
    yield from captured.get().splitlines()
