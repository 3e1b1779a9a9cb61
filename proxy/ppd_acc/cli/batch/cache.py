"""cache clear and cache stats: the answers that batch-compare --cache-dir keeps. Other files are left alone."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from ppd_acc.ask import cache
from ppd_acc.cli.flags import between
from ppd_acc.cli.given import Given
from ppd_acc.cli.options import flag
from ppd_acc.outcome import Exit, Result
from ppd_acc.surroundings import Surroundings


def _directory(given: Given) -> Path:
    directory = given.option("cache_dir", None, "batch")
    if directory is not None:
        return given.directory / Path(directory).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ppd-acc"


def directory_flag() -> Any:
    return flag(
        "--cache-dir", metavar="DIR", help="default: the file's [batch] cache_dir, else ~/.cache/ppd-acc",
        read=_directory,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearOptions:
    directory: Path = directory_flag()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsOptions:
    directory: Path = directory_flag()
    ttl_s: float = flag(
        "--cache-ttl", type=between(0, 1e12), metavar="S", help="older entries count as expired",
        read=lambda given: float(given.option("cache_ttl", cache.DEFAULT_TTL_S, "batch")),
    )  # fmt: skip


def run_clear(options: ClearOptions, surroundings: Surroundings) -> Result:
    directory = options.directory
    removed, kept = cache.clear(directory)
    told = f"{directory}: {removed} files removed, {kept} that are not ours stay"
    data = {"directory": str(directory), "removed": removed, "kept": kept}
    return Result(exit=Exit.PASS, data=data, view=(Text(told),))


def run_stats(options: StatsOptions, surroundings: Surroundings) -> Result:
    directory, ttl_s = options.directory, options.ttl_s
    found = cache.stats_of(directory, ttl_s, surroundings.wall_clock())
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


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
