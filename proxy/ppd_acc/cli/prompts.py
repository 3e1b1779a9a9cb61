"""Prompts from the command line: `--prompt`, repeatable, and `--prompts FILE` with one a line."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppd_acc.cli.flags import prompt_text
from ppd_acc.outcome import Mistake


def add_prompt_flags(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--prompt", type=prompt_text, action="append", metavar="TEXT", help=f"{what}, repeatable")
    parser.add_argument("--prompts", metavar="FILE", help="the same, one a line (UTF-8); empty lines are left out")


def prompts_of(args: argparse.Namespace, directory: Path) -> list[str]:
    """All of them, at least one, in order. Raises Mistake."""
    found = list(args.prompt or ())
    if args.prompts is not None:
        found += [line for line in read_text(directory / args.prompts, "--prompts").splitlines() if line.strip()]
    if not found:
        raise Mistake("--prompt is missing; give a text, or --prompts FILE with one a line")
    if "" in found:
        raise Mistake("--prompt is empty; give a text")
    return found


def read_text(path: Path, flag: str) -> str:
    """A file of text. Raises Mistake, which names the flag."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{flag} {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{flag} {path}: not UTF-8; give a file of text") from None
