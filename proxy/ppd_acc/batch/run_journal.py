"""What a long run has finished, on disk, so that it can go on after anything that ended it.

One JSON line each: the head (format, settings and their hash), then what the run needs to go on (`start`), then one per
finished sample. Lines are handed to the system at once and synced to the disk in batches, so a killed process loses
nothing and a lost machine the last seconds. A torn last line is dropped. A sample that is there twice counts as written
last: samples that were errors are asked again.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from ppd_acc.outcome import Mistake, Trouble

KIND = "ppd-acc-run"
VERSION = 3
_SYNC_EVERY_LINES = 64
_GO_ON = "give what it was, or run without --resume to begin anew"
_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "targets": "--target", "datasets": "--dataset", "samples": "the number of samples", "captured_at":
        "the time of the snapshot", "selection": "the selection of samples", "template": "the text of --template",
        "matching": "what counts as equal",
    }
)  # fmt: skip
"""What settings are called that are no flag, or one of another name."""


class Head(msgspec.Struct, kw_only=True):
    """`settings` decide what is asked and how it is judged; runs with others are not mixed."""

    kind: str = KIND
    version: int = VERSION
    settings_sha256: str
    settings: dict[str, Any]


class Started(msgspec.Struct, kw_only=True):
    """What was measured before the first sample."""

    start: msgspec.Raw


class Finished(msgspec.Struct, kw_only=True):
    """One row: its samples (one per target), and whether one of them is an error."""

    row: int
    has_error: bool
    samples: list[msgspec.Raw]


class _Line(msgspec.Struct, kw_only=True):
    """Either of the two."""

    start: msgspec.Raw = msgspec.Raw(b"")
    row: int = -1
    has_error: bool = False
    samples: list[msgspec.Raw] = []


_encode = msgspec.json.Encoder().encode
_head = msgspec.json.Decoder(Head)
_line = msgspec.json.Decoder(_Line)


def hash_of(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(settings, order="deterministic")).hexdigest()


class Found:
    """What an earlier run left: `start`, and the finished rows' samples."""

    def __init__(self) -> None:
        self.start: bytes | None = None
        self.rows: dict[int, tuple[bytes, ...]] = {}
        self.length = 0

    @property
    def is_empty(self) -> bool:
        return not self.length


class RunJournal:
    """An open journal that no other process can open; `begin` or `resume` makes one. Raises Trouble when the disk does
    not take a line."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, length)
            os.lseek(self._file, length, os.SEEK_SET)
        except BlockingIOError:
            raise Mistake(f"--journal {path}: another run is writing it") from None
        except OSError as error:
            raise _trouble(path, error) from None
        self._unsynced = 0
        self._is_syncing = False

    @classmethod
    def begin(cls, path: Path, settings: Mapping[str, Any]) -> RunJournal:
        """A new one. What is there already is kept as PATH.old."""
        try:
            if path.exists() and path.stat().st_size:
                cls(path, path.stat().st_size).close()  # not while another run writes it
                os.replace(path, path.with_name(path.name + ".old"))
        except OSError as error:
            raise _trouble(path, error) from None
        journal = cls(path, 0)
        journal._write(_encode(Head(settings_sha256=hash_of(settings), settings=dict(settings))))
        return journal

    @classmethod
    def resume(cls, path: Path, settings: Mapping[str, Any]) -> tuple[RunJournal, Found]:
        """One that goes on, and what it has; a new one where there is none. Raises Mistake for other settings."""
        found = read_journal(path, settings)
        return (cls.begin(path, settings) if found.is_empty else cls(path, found.length)), found

    def start(self, encoded: bytes) -> None:
        self._write(_encode(Started(start=msgspec.Raw(encoded))))

    async def finished(self, row: int, samples: tuple[bytes, ...], *, has_error: bool) -> None:
        """Writes one row; every now and then also waits until the disk has all of them."""
        told = Finished(row=row, has_error=has_error, samples=[msgspec.Raw(each) for each in samples])
        self._write(_encode(told))
        if self._unsynced >= _SYNC_EVERY_LINES and not self._is_syncing:
            self._is_syncing, self._unsynced = True, 0
            try:
                await asyncio.to_thread(os.fsync, self._file)
            except OSError as error:
                raise _trouble(self.path, error) from None
            finally:
                self._is_syncing = False

    def close(self) -> None:
        if self._file >= 0:
            try:
                os.fsync(self._file)
            except OSError as error:
                raise _trouble(self.path, error) from None
            finally:
                os.close(self._file)
                self._file = -1

    def _write(self, line: bytes) -> None:
        left = memoryview(line + b"\n")
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            raise _trouble(self.path, error) from None
        self._unsynced += 1


def read_journal(path: Path, settings: Mapping[str, Any] | None = None) -> Found:
    """What is in it; nothing where there is no file or only a torn head. Raises Mistake for a file that is no journal
    or, with `settings`, one of a run with other settings: it says which."""
    found = Found()
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return found
    except OSError as error:
        raise Mistake(f"--journal {path}: {error.strerror or error}") from None
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                if number == 1:
                    _check_head(path, _head.decode(line), settings)
                else:
                    _take(found, _line.decode(line))
            except msgspec.MsgspecError as error:
                if number > 1 and _is_last(file):
                    break
                told = "not a journal of ppd-acc" if number == 1 else "not a line of this journal"
                raise Mistake(f"--journal {path}, line {number}: {told}: {error}") from None
            found.length += len(line)
    return found


def _is_last(file: Any) -> bool:
    position = file.tell()
    rest = file.read(1)
    file.seek(position)
    return not rest


def _take(found: Found, line: _Line) -> None:
    start = bytes(line.start)
    if start:
        found.start = start
    if line.row >= 0:
        if line.has_error:
            found.rows.pop(line.row, None)
        else:
            found.rows[line.row] = tuple(map(bytes, line.samples))


def _check_head(path: Path, head: Head, settings: Mapping[str, Any] | None) -> None:
    if head.kind != KIND or head.version != VERSION:
        raise Mistake(f"--journal {path}: {head.kind!r} version {head.version}; it must be {KIND!r} version {VERSION}")
    if settings is None or head.settings_sha256 == hash_of(settings):
        return
    now = msgspec.to_builtins(dict(settings))
    other = [_told(name, was, told) for name, was, told in _differing((), head.settings, now)]
    raise Mistake(f"--resume {path}: {'; '.join(other) or 'the hash of the settings differs'}; {_GO_ON}")


def _differing(path: tuple[str, ...], was: Any, now: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """The values that differ, each with the names that lead to it."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in sorted({*was, *now}):
            yield from _differing((*path, name), was.get(name), now.get(name))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _differing((*path, str(number)), one, other)
    elif was != now:
        yield path, was, now


def _told(path: tuple[str, ...], was: Any, now: Any) -> str:
    """One of them, by the name of its flag where it has one."""
    name = path[1] if len(path) > 1 and path[0] == "sampling" else path[0]
    if path[0] == "headers_sha256":
        return "the headers are others than they were"
    if path[0] == "datasets" and path[-1] in ("sha256", "samples"):
        return f"--dataset has other content: its {path[-1]} was {was} and is {now}"
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    return f"{flag} was {_value(was)} and is {_value(now)}"


def _value(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "not given"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _trouble(path: Path, error: OSError) -> Trouble:
    return Trouble(f"--journal {path}: {error.strerror or error}")
