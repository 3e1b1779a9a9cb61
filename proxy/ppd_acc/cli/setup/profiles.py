"""profiles: which named sampling settings there are."""

from __future__ import annotations

import argparse

from rich.table import Table
from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.settings import BUILT_IN_PROFILES
from ppd_acc.outcome import Exit, Result

_COLUMNS = ("temperature", "top_p", "seed", "max_tokens", "model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but those of every command."""


def run(args: argparse.Namespace, context: Context) -> Result:
    settings = context.settings
    own = settings.tables.get("profiles", {})
    table = Table("profile", *_COLUMNS, "from")
    profiles = {}
    for name, values in sorted(settings.profiles.items()):
        source = str(settings.source) if name in own else "built in"
        profiles[name] = {"values": dict(values), "source": source}
        table.add_row(*(Text(str(each)) for each in (name, *(values.get(key, "") for key in _COLUMNS), source)))
    replaced = [name for name in own if name in BUILT_IN_PROFILES]
    notes = tuple(f"profiles.{name} of the file replaces the built-in one" for name in replaced)
    return Result(exit=Exit.PASS, data={"profiles": profiles}, view=(table,), notes=notes)


COMMANDS = (Command(name="profiles", add_arguments=add_arguments, run=run),)
