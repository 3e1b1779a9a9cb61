"""What a command is about to write, looked at before any work is done: that it can be written, and what it replaces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppd_acc.outcome import Mistake

_WRITTEN = (
    "json", "output", "csv", "junit", "markdown", "prometheus", "journal", "log", "metrics_file", "plot",
)  # fmt: skip
_RESUMED = ("resume", "checkpoint")
_RESULT = re.compile(rb'\s*\{\s*"kind":[^{}]*"exit": \d')
_HEAD_BYTES = 512


def check_outputs(flags: Mapping[str, Any], directory: Path) -> None:
    """Raises Mistake where an output would replace one of the inputs, and where `--json` cannot be written or would
    replace what is no result: it takes the word behind it, which may have been meant as an input."""
    for name in _WRITTEN:
        value = flags.get(name)
        if not isinstance(value, str) or value == "-":
            continue
        path = directory / value
        try:
            if path.is_file():
                _check_inputs(flags, directory, name, value)
            if name == "json":
                _check_json(value, path)
        except OSError as error:  # what can be no path
            raise Mistake(f"{_flag(name)} {value[:_HEAD_BYTES]!a}: {error.strerror or error}") from None


def _check_inputs(flags: Mapping[str, Any], directory: Path, name: str, value: str) -> None:
    for other, word in _words(flags):
        if other in (*_WRITTEN, *_RESUMED):
            continue
        if _is_same(directory / word, directory / value):
            raise Mistake(f"{_flag(name)} {value}: is the input, too, and would replace it; give another file")


def _words(flags: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in flags.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str) and each:
                yield name, each


def _is_same(word: Path, written: Path) -> bool:
    """What can be no path (a long prompt) is another one."""
    try:
        return word.samefile(written)
    except (OSError, ValueError):
        return False


def _check_json(name: str, path: Path) -> None:
    if path.is_dir():
        raise Mistake(f"--json {name}: is a directory; it must be a file")
    if not path.parent.is_dir():
        raise Mistake(f"--json {name}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Mistake(f"--json {name}: cannot be written")
    if path.is_file() and path.stat().st_size and not _is_result(path):
        raise Mistake(
            f"--json {name}: is there, and is not what --json wrote; if it is the input, write --json - before it"
        )


def _is_result(path: Path) -> bool:
    """A file that cannot be read is none."""
    try:
        with path.open("rb") as file:
            return _RESULT.match(file.read(_HEAD_BYTES)) is not None
    except OSError:
        return False


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
