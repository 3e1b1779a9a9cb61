"""cache clear and cache stats: the answers that batch-compare --cache-dir keeps. Other files are left alone."""

from __future__ import annotations

import argparse
import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

from ppd_acc.ask import cache
from ppd_acc.cli.command import Command, Context
from ppd_acc.cli.flags import between, option
from ppd_acc.outcome import Exit, Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache-dir", metavar="DIR", help="default: the file's [batch] cache_dir, else ~/.cache/ppd-acc"
    )


def add_stats_arguments(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument("--cache-ttl", type=between(0, 1e12), metavar="S", help="older entries count as expired")


def clear(args: argparse.Namespace, context: Context) -> Result:
    directory = _directory(args, context)
    removed, kept = cache.clear(directory)
    told = f"{directory}: {removed} files removed, {kept} that are not ours stay"
    data = {"directory": str(directory), "removed": removed, "kept": kept}
    return Result(exit=Exit.PASS, data=data, view=(Text(told),))


def stats(args: argparse.Namespace, context: Context) -> Result:
    directory = _directory(args, context)
    ttl_s = float(option(args, context.settings, "cache_ttl", cache.DEFAULT_TTL_S, "batch"))
    found = cache.stats_of(directory, ttl_s, context.wall_clock())
    lines = [
        f"{directory}: {found.entries} entries, {found.size_bytes / 1e6:.2f} MB, {found.expired} older than {ttl_s:g} s"
    ]
    if found.oldest_at is not None and found.newest_at is not None:
        lines.append(f"from {_date(found.oldest_at)} to {_date(found.newest_at)}")
    lines += [f"  {url}: {count}" for url, count in sorted(found.by_url.items())]
    if found.foreign:
        lines.append(f"{found.foreign} files are not ours")
    data = {"directory": str(directory), "ttl_s": ttl_s, **dataclasses.asdict(found)}
    return Result(exit=Exit.PASS, data=data, view=tuple(map(Text, lines)))


def _directory(args: argparse.Namespace, context: Context) -> Path:
    told = option(args, context.settings, "cache_dir", None, "batch")
    if told is not None:
        return context.directory / Path(told).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ppd-acc"


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


COMMANDS = (
    Command(name="cache clear", add_arguments=add_arguments, run=clear),
    Command(name="cache stats", add_arguments=add_stats_arguments, run=stats),
)
