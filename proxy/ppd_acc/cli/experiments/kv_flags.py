"""The flags that name two KV dumps of one prompt."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppd_acc.cli.flags import between, option
from ppd_acc.cli.settings import Settings
from ppd_acc.outcome import Mistake


def add_kv_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("KV dumps of one prompt (see check-kv)")
    for side in ("baseline", "target"):
        group.add_argument(f"--kv-{side}", metavar="FILE", help=f"the {side}'s: .npz or .safetensors")
    group.add_argument("--kv-max-abs-threshold", type=between(0, float("inf")), metavar="F", help="largest difference")
    group.add_argument("--kv-cosine-threshold", type=between(-1, 1), metavar="F", help="smallest cosine")


def kv_paths(args: argparse.Namespace, directory: Path) -> tuple[Path, Path] | None:
    """Both dumps, or None where none is given. Raises Mistake for one without the other, or one that is not there."""
    given = [(f"--kv-{side}", getattr(args, f"kv_{side}")) for side in ("baseline", "target")]
    if all(path is None for _, path in given):
        return None
    for flag, path in given:
        if path is None:
            raise Mistake(f"{flag} is missing; KV is compared with that of the other side")
        if not (directory / path).is_file():
            raise Mistake(f"{flag} {path}: no such file")
    return directory / given[0][1], directory / given[1][1]


def kv_limit(args: argparse.Namespace, settings: Settings, name: str) -> float | None:
    """A threshold of the flags, else of the file."""
    given = getattr(args, f"kv_{name}")
    value = given if given is not None else option(args, settings, name, table="kv")
    return None if value is None else float(value)
