"""Answers on disk, for whoever asks for it: off by default, and never used for a noise floor.

An entry's name is the SHA-256 of the side, the URL, the headers and the whole body, so nothing that decides an answer
can change unnoticed. Files that are no entries of ours are never touched.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ppd_acc.ask.answers import Answer
from ppd_acc.outcome import Mistake, Trouble

KIND = "ppd-acc-cache"
VERSION = 2
DEFAULT_TTL_S = 3600.0
_NAME = re.compile(r"[0-9a-f]{64}\.json")
_LEFT = re.compile(r"\.[0-9a-f]{64}\.\d+\.tmp")
_START = b'{"kind":"ppd-acc-cache",'
"""What every entry begins with."""


class Entry(msgspec.Struct, kw_only=True):
    """`created_at` is in Unix seconds. Headers and body are in the name only, as a hash: they may hold secrets."""

    kind: str = KIND
    version: int = VERSION
    created_at: float
    url: str
    answer: Answer


class _Peek(msgspec.Struct, kw_only=True):
    created_at: float
    url: str
    version: int = 0


_encode = msgspec.json.Encoder().encode
_entry = msgspec.json.Decoder(Entry)
_peek = msgspec.json.Decoder(_Peek)


class Cache:
    """A directory of entries, each good for `ttl_s` seconds. `hits` and `misses` count what was asked of it."""

    def __init__(self, directory: Path, ttl_s: float, wall_clock: Callable[[], float]) -> None:
        self.directory = directory
        self.ttl_s = ttl_s
        self._wall_clock = wall_clock
        self.hits = self.misses = 0

    def get(self, key: str) -> Answer | None:
        """None also for an entry that is too old, of a newer program, or damaged."""
        try:
            entry = _entry.decode((self.directory / f"{key}.json").read_bytes())
        except (OSError, msgspec.MsgspecError):
            entry = None
        age_s = self._wall_clock() - entry.created_at if entry is not None else 0.0
        if entry is None or entry.kind != KIND or entry.version != VERSION or not 0 <= age_s <= self.ttl_s:
            self.misses += 1
            return None
        self.hits += 1
        return entry.answer

    def put(self, key: str, url: str, answer: Answer) -> None:
        """Raises Trouble where the directory takes no file."""
        body = _encode(Entry(created_at=self._wall_clock(), url=url, answer=answer))
        beside = self.directory / f".{key}.{os.getpid()}.tmp"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(body)
            os.replace(beside, self.directory / f"{key}.json")
        except OSError as error:
            raise Trouble(f"--cache-dir {self.directory}: {error.strerror or error}") from None


def key_of(side: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> str:
    """`url` with its path; `headers` that are sent every time. Baseline and target never share an answer, not even
    where they are the same engine: it would agree with itself by construction."""
    sent = [side, url, sorted((name.lower(), value) for name, value in headers.items()), body]
    return hashlib.sha256(msgspec.json.encode(sent, order="deterministic")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What is in a directory. `foreign` files are not ours."""

    entries: int
    size_bytes: int
    expired: int
    oldest_at: float | None
    newest_at: float | None
    by_url: Mapping[str, int]
    foreign: int


def stats_of(directory: Path, ttl_s: float, now: float) -> Stats:
    """Raises Mistake where the path is no directory; one that does not exist is empty."""
    times: list[float] = []
    by_url: dict[str, int] = {}
    size_bytes = foreign = 0
    for path in _files(directory):
        peeked = _own(path)
        if peeked is None:
            foreign += 1
            continue
        size_bytes += path.stat().st_size
        times.append(peeked.created_at)
        by_url[peeked.url] = by_url.get(peeked.url, 0) + 1
    return Stats(
        entries=len(times),
        size_bytes=size_bytes,
        expired=sum(not 0 <= now - each <= ttl_s for each in times),
        oldest_at=min(times, default=None),
        newest_at=max(times, default=None),
        by_url=by_url,
        foreign=foreign,
    )


def clear(directory: Path) -> tuple[int, int]:
    """Removes our entries and what our interrupted writes left: how many, and how many other files stay. Raises
    Mistake as `stats_of`, Trouble where a file cannot be removed."""
    removed = kept = 0
    for path in _files(directory):
        if _own(path) is None and _LEFT.fullmatch(path.name) is None:
            kept += 1
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Trouble(f"--cache-dir {path}: {error.strerror or error}") from None
        removed += 1
    return removed, kept


def _files(directory: Path) -> Iterator[Path]:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise Mistake(f"--cache-dir {directory}: no directory")
    try:
        yield from sorted(directory.iterdir())
    except OSError as error:
        raise Trouble(f"--cache-dir {directory}: {error.strerror or error}") from None


def _own(path: Path) -> _Peek | None:
    """What an entry of ours says of itself, even a damaged one; None for everything else, links included."""
    if _NAME.fullmatch(path.name) is None or path.is_symlink() or not path.is_file():
        return None
    try:
        body = path.read_bytes()
    except OSError:
        return None
    if not body.startswith(_START):
        return None
    try:
        return _peek.decode(body)
    except msgspec.MsgspecError:
        return _Peek(created_at=0.0, url="damaged")
