"""config validate: is a configuration file right?"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.text import Text

from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.settings import FILE_NAMES, mistakes_of, read_tables, unknown_of
from ppd_acc.outcome import Exit, Mistake, Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", nargs="?", metavar="FILE", help=f"default: --config, else {FILE_NAMES[0]}, else {FILE_NAMES[1]}"
    )


def run(args: argparse.Namespace, context: Context) -> Result:
    path = _path(args, context)
    tables = read_tables(path)
    mistakes, unknown = tuple(mistakes_of(tables)), tuple(unknown_of(tables))
    if mistakes:
        raise Mistake("\n".join(f"{path}: {each}" for each in (*mistakes, *unknown)))
    names = [name for name, table in tables.items() if isinstance(table, dict)]
    told = f"{path}: valid" + (f", {len(unknown)} unknown" if unknown else "")
    return Result(
        exit=Exit.PASS,
        data={"path": str(path), "tables": names, "unknown": list(unknown)},
        view=(Text(told),),
        notes=tuple(f"{path}: {each}" for each in unknown),
    )


def _path(args: argparse.Namespace, context: Context) -> Path:
    given: str | None = args.path if args.path is not None else getattr(args, "config", None)
    if given is not None:
        return context.directory / given
    found = next((name for name in FILE_NAMES if (context.directory / name).is_file()), None)
    if found is None:
        raise Mistake(f"no {' or '.join(FILE_NAMES)} here; give the file's path, or begin with ppd-acc init")
    return context.directory / found


COMMANDS = (Command(name="config validate", add_arguments=add_arguments, run=run),)
