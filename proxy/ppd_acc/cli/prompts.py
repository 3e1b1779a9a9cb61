"""Prompts from the command line: `--prompt`, repeatable, and `--prompts FILE` with one a line."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ppd_acc.cli.flags import prompt_text
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flags
from ppd_acc.outcome import Mistake


def add_prompt_flags(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--prompt", type=prompt_text, action="append", metavar="TEXT", help=f"{what}, repeatable")
    parser.add_argument("--prompts", metavar="FILE", help="the same, one a line (UTF-8); empty lines are left out")


def prompts_flags(what: str) -> Any:
    """All of them, at least one, in order."""
    return flags(partial(add_prompt_flags, what=what), _prompts)


def _prompts(given: Given) -> tuple[str, ...]:
    prompts, path = given.flag("prompt") or (), given.path("prompts")
    if path is not None:
        prompts += tuple(line for line in read_text(path, "--prompts").splitlines() if line.strip())
    if not prompts:
        raise Mistake("--prompt is missing; give a text, or --prompts FILE with one a line")
    if "" in prompts:
        raise Mistake("--prompt is empty; give a text")
    return tuple(prompts)


def read_text(path: Path, flag: str) -> str:
    """A file of text. Raises Mistake, which names the flag."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{flag} {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{flag} {path}: not UTF-8; give a file of text") from None
