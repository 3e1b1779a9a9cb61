"""The command line of ppd-acc: its commands, and the options that every one has."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from ppd_acc.cli.registry import COMMANDS, Listed
from ppd_acc.outcome import Mistake

_FEW_COMMANDS = 8


class _Parser(argparse.ArgumentParser):
    """Tells a mistake by an exception: `main` alone ends the program."""

    def error(self, message: str) -> Any:
        raise Mistake(f"{message}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Of an unknown command, what it may have been: argparse lists all of them."""
        known = [str(each) for each in action.choices or ()]
        if not isinstance(action, argparse._SubParsersAction) or value in known:
            super()._check_value(action, value)
            return
        close = [each for each in known if each.startswith(f"{value}-")] or get_close_matches(str(value), known, n=1)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        is_group = len(known) <= _FEW_COMMANDS
        self.error(f"no command {value!a}" + (f"; {hint}" if close or is_group else ""))


class _CommandParser(_Parser):
    """Gets its arguments, and with them its command's module, when it is the one that is asked to parse."""

    listed: Listed | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.load()
        return super().parse_known_args(args, namespace)

    def load(self) -> None:
        if self.listed is not None:
            command = self.listed.load()
            self.listed = None
            command.add_arguments(self)
            self.set_defaults(command=command)


def build_parser(commands: Sequence[Listed] = COMMANDS, *, is_complete: bool = False) -> argparse.ArgumentParser:
    """The options that every command has may stand anywhere on the line. A command's module is imported when its
    arguments are parsed, or at once where the parser must be complete."""
    parser = _Parser(prog="ppd-acc", description="Find where a split deployment goes wrong.", allow_abbrev=False)
    parser.add_argument("-V", "--version", action="version", version=f"ppd-acc {version('ppd-proxy')}")
    _add_global(parser, is_top=True)
    subparsers = parser.add_subparsers(dest="_name", required=True, metavar="COMMAND", parser_class=_CommandParser)
    groups: dict[str, Any] = {}
    for listed in commands:
        first, _, second = listed.name.partition(" ")
        if second and first not in groups:
            group = subparsers.add_parser(first, help=f"{first}: subcommands", allow_abbrev=False)
            groups[first] = group.add_subparsers(dest="_name", required=True, metavar="COMMAND")
        owner = groups[first] if second else subparsers
        own = owner.add_parser(
            second or first, help=listed.summary, description=listed.summary, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        _add_global(own, is_top=False)
        own.listed = listed
        if is_complete:
            own.load()
    return parser


def _add_global(parser: argparse.ArgumentParser, *, is_top: bool) -> None:
    """On a subcommand nothing is set unless it is given, so that what stands before the command survives."""
    unset: dict[str, Any] = {} if is_top else {"default": argparse.SUPPRESS}
    group = parser.add_argument_group("options of every command")
    group.add_argument("-v", "--verbose", action="count", help="-v for what is done, -vv for all details", **unset)
    group.add_argument("-q", "--quiet", action="store_true", help="errors only; nothing on standard output", **unset)
    group.add_argument(
        "--config", metavar="FILE", help="TOML (default: ppd-acc.toml, else xpyd-acc.toml, where they exist)", **unset
    )
    bare: dict[str, Any] = {} if is_top else {"nargs": "?", "const": "-"}  # before the command it would take its name
    group.add_argument(
        "--json", metavar="FILE", type=_json_file, help="write the result as JSON; - for standard output",
        **bare, **unset,
    )  # fmt: skip


def _json_file(text: str) -> str:
    if text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text} is no file: write --json - before a URL, or --json behind it")
    return text
