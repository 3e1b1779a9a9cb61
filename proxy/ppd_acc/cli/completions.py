"""Completion scripts of `ppd-acc` from its own parser: bash and zsh by shtab, fish here.

The scripts are static: they complete commands, subcommands, options, choices and file names, and start no program.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Literal

import shtab

Shell = Literal["bash", "zsh", "fish"]
SHELLS: tuple[Shell, ...] = ("bash", "zsh", "fish")
NAMES = ("ppd-acc", "xpyd-acc")
"""Both console scripts are completed."""


def script_of(parser: argparse.ArgumentParser, shell: Shell) -> str:
    """The script for one shell. Marks the parser's file options, so it is not for parsing with afterwards."""
    if shell == "fish":
        return _fish(parser)
    for each in _parsers(parser):
        for action in each._actions:
            if _is_path(action):
                is_directory = str(action.metavar).startswith("DIR")
                action.complete = shtab.DIRECTORY if is_directory else shtab.FILE  # type: ignore[attr-defined]
    script = str(shtab.complete(parser, shell=shell))
    first, second = NAMES
    if shell == "bash":
        registered = [line for line in script.splitlines() if line.startswith("complete ") and line.endswith(first)]
        return "\n".join([script.rstrip("\n"), *(line.removesuffix(first) + second for line in registered), ""])
    return script.replace(f"#compdef {first}", f"#compdef {first} {second}", 1)


def _is_path(action: argparse.Action) -> bool:
    """By its metavar: FILE, FILE.png, DIR."""
    return isinstance(action.metavar, str) and action.metavar.startswith(("FILE", "DIR"))


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for _, _, each in _commands(parser):
        yield from _parsers(each)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of each subcommand."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            for name, each in action.choices.items():
                yield name, helps.get(name, ""), each


def _fish(parser: argparse.ArgumentParser) -> str:
    """`complete` takes a condition: where on the line the word stands."""
    lines = ["# Completion of ppd-acc for fish: put it where fish looks, e.g. ~/.config/fish/completions/ppd-acc.fish"]
    for program in NAMES:
        lines.append(f"complete -c {program} -f")
        lines += _fish_of(program, parser, ())
    return "\n".join(lines) + "\n"


def _fish_of(program: str, parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[str]:
    commands = list(_commands(parser))
    names = " ".join(name for name, _, _ in commands)
    seen = [f"__fish_seen_subcommand_from {name}" for name in path]
    here = "; and ".join([*seen, *([f"not __fish_seen_subcommand_from {names}"] if names else [])])
    inside = "; and ".join(seen)
    for name, text, _ in commands:
        yield f"complete -c {program} -n {_quoted(here)} -a {name} -d {_quoted(text)}"
    for action in parser._actions:
        yield from _fish_option(program, action, inside if path else here)
    for name, _, each in commands:
        yield from _fish_of(program, each, (*path, name))


def _fish_option(program: str, action: argparse.Action, condition: str) -> Iterator[str]:
    if isinstance(action, argparse._SubParsersAction):
        return
    start = f"complete -c {program} -n {_quoted(condition)}"
    choices = f" -a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
    is_path = _is_path(action)
    if not action.option_strings:
        if choices or is_path:
            yield start + (choices or " -F")
        return
    flags = "".join(
        f" -l {flag.removeprefix('--')}" if flag.startswith("--") else f" -s {flag.removeprefix('-')}"
        for flag in action.option_strings
    )
    takes_value = action.nargs != 0
    value = (" -r -F" if is_path else " -x" + choices) if takes_value else ""
    text = (action.help or "").split("(default")[0].replace("%%", "%").strip()
    yield f"{start}{flags}{value} -d {_quoted(text)}"


def _quoted(text: str) -> str:
    """A fish string: only a backslash and a quote mean something within single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
