"""The journal of judged samples: one SQLite file beside the proxy.

Owns the file's only connection, and the rows that wait to be written. The connection is used in worker threads alone,
one call at a time; the event loop never waits for a disk. Nothing a disk does reaches a request: what cannot be written
waits, and what finds no room to wait is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ppd_accuracy.verdicts import rows
from ppd_accuracy.verdicts.rows import SampleRow, Storage
from ppd_shell.settings import ConfigError
from ppd_shell.sqlite import identity, opened_private, transaction

WRITE_INTERVAL_S = 0.5
PRUNE_INTERVAL_S = 60.0
MAX_WAITING_ROWS = 2048
MAX_WAITING_BYTES = 64 * 2**20
_BATCH_ROWS = 256
_BUSY_TIMEOUT_S = 1.0
_MAX_WAL_BYTES = 16 * 2**20
# What one row's values can be to blame for; every other error of SQLite is the file's or the disk's.
_ROW_ERRORS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Journal:
    """Made by `open`. `run` writes what `add` takes, `forget` deletes what is too old; `close` writes the rest.

    `on_dropped` hears one word for each row that is lost: `journal_full`, `journal_row` (SQLite cannot hold it) or
    `journal_closed`. Reading raises sqlite3.Error where the file cannot be read any more.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection | None,
        *,
        max_rows: int,
        max_age_s: float,
        storage: Storage,
        on_dropped: Callable[[str], None] | None,
    ) -> None:
        self._path = path
        self._connection = connection
        self._max_rows = max_rows
        self._max_age_s = max_age_s
        self._storage: Storage = storage
        self._on_dropped = on_dropped
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._waiting: deque[SampleRow] = deque()
        self._waiting_bytes = 0
        self._has_rows = asyncio.Event()
        self._is_failing = False
        self.written = 0
        """Rows that are on disk and survive the end of this process, whatever ends it."""
        self.dropped = 0

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        max_rows: int,
        max_age_s: float,
        storage: Storage,
        on_dropped: Callable[[str], None] | None = None,
    ) -> Journal:
        """Open or make the file; with storage `none` no file is touched and nothing is ever kept.

        Raises ConfigError for limits that make no sense, and for a file that is damaged, another program's, or a newer
        version's: it is never overwritten.
        """
        mistakes = [
            f"{name} is {value}; it must be above 0"
            for name, value in (("max_rows", max_rows), ("max_age_s", max_age_s))
            if not value > 0
        ]
        if storage not in rows.STORAGES:
            mistakes.append(f"storage is {storage!r}; it must be one of {', '.join(rows.STORAGES)}")
        if mistakes:
            raise ConfigError([f"journal: {mistake}" for mistake in mistakes])
        connection = None if storage == "none" else await asyncio.to_thread(_open, path)
        return cls(path, connection, max_rows=max_rows, max_age_s=max_age_s, storage=storage, on_dropped=on_dropped)

    def add(self, row: SampleRow) -> None:
        """Hand over a row; returns at once. A later row of the same sample replaces the earlier one."""
        if self._storage == "none":
            return
        row = rows.without_text(row, self._storage)
        size = rows.size_bytes(row)
        if self._connection is None:
            self._drop("journal_closed")
        elif len(self._waiting) >= MAX_WAITING_ROWS or self._waiting_bytes + size > MAX_WAITING_BYTES:
            self._drop("journal_full")
        else:
            self._waiting.append(row)
            self._waiting_bytes += size
            self._has_rows.set()

    async def run(self) -> None:
        """Write until cancelled: as soon as there is something to write, but at most every `WRITE_INTERVAL_S`.

        One transaction takes many rows, so the disk is asked seldom however many samples there are. Old rows are
        deleted in the same transaction: the file never holds more than it may. After a failure the rows stay and the
        next round tries again.
        """
        while True:
            await self._has_rows.wait()
            await self.flush()
            await asyncio.sleep(WRITE_INTERVAL_S)

    async def forget(self, clock: Callable[[], float]) -> None:
        """Prune until cancelled, by `clock` (Unix seconds): at once, for the rows of an earlier run, and then every
        `PRUNE_INTERVAL_S`. What is too old goes whether or not anything new comes."""
        while True:
            try:
                await self.prune(clock())
            except sqlite3.Error as error:
                _log.warning("journal cannot be pruned path=%s error=%r", self._path, error)
            await asyncio.sleep(min(PRUNE_INTERVAL_S, max(1.0, self._max_age_s)))

    async def flush(self) -> bool:
        """Write what waits now. False if it could not be written; it waits on."""
        async with self._lock:
            while self._waiting and self._connection is not None:
                batch = tuple(islice(self._waiting, _BATCH_ROWS))
                if not await self._write(self._connection, batch):
                    return False
            self._has_rows.clear()
            return True

    async def latest(
        self, limit: int, *, outcome: str | None = None, route: str | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        """The newest rows first, without their contents. `before` is the `seq` of the last row of the page before."""
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be 1 or more")
        filters = {"outcome = ?": outcome, "route = ?": route, "seq < ?": before}
        used = {condition: value for condition, value in filters.items() if value is not None}
        where = f"WHERE {' AND '.join(used)} " if used else ""
        query = f"SELECT {rows.FACT_COLUMNS} FROM samples {where}ORDER BY seq DESC LIMIT ?"
        nothing: list[sqlite3.Row] = []
        stored = await self._read(
            lambda connection: connection.execute(query, (*used.values(), limit)).fetchall(), nothing
        )
        return [rows.decode(dict(row)) for row in stored]

    async def get(self, sample_id: str) -> dict[str, Any] | None:
        """All that is kept of one sample; None where there is no such row."""
        query = f"SELECT {rows.ALL_COLUMNS} FROM samples WHERE sample_id = ?"
        stored = await self._read(lambda connection: connection.execute(query, (sample_id,)).fetchone(), None)
        return None if stored is None else rows.decode(dict(stored))

    async def count(self) -> int:
        """Rows in the file."""
        query = "SELECT count(*) AS n FROM samples"
        return int(await self._read(lambda connection: connection.execute(query).fetchone()["n"], 0))

    async def prune(self, now: float) -> None:
        """Delete what is too old at `now` (Unix seconds). Needed where no rows come: writing one does the same."""
        await self._read(lambda connection: _prune_alone(connection, self._max_rows, now - self._max_age_s), None)

    async def close(self) -> None:
        """Write what waits and close the file; what cannot be written is dropped. Closing twice is harmless."""
        if not await self.flush():
            _log.error("journal closed with %d rows unwritten path=%s", len(self._waiting), self._path)
        async with self._lock:
            connection, self._connection = self._connection, None
            for _ in range(len(self._waiting)):
                self._drop("journal_closed")
            self._waiting.clear()
            self._waiting_bytes = 0
            if connection is not None:
                await self._end_of(self._loop.run_in_executor(None, connection.close))

    async def _write(self, connection: sqlite3.Connection, batch: Sequence[SampleRow]) -> bool:
        """Write the first rows that wait. The caller holds the lock."""
        job = self._loop.run_in_executor(None, self._insert, connection, batch)
        try:
            await self._end_of(job)
        except sqlite3.Error as error:
            if not self._is_failing:
                _log.warning("journal cannot be written path=%s error=%r", self._path, error)
            self._is_failing = True
            return False
        finally:
            if job.done() and job.exception() is None:
                self._settle(batch, job.result())
        return True

    def _settle(self, batch: Sequence[SampleRow], refused: Sequence[str]) -> None:
        for row in batch:
            self._waiting.popleft()
            self._waiting_bytes -= rows.size_bytes(row)
        self.written += len(batch) - len(refused)
        if self._is_failing:
            _log.warning("journal is written again path=%s", self._path)
        self._is_failing = False
        for why in refused:
            _log.error("journal cannot hold a row %s", why)
            self._drop("journal_row")

    def _insert(self, connection: sqlite3.Connection, batch: Sequence[SampleRow]) -> list[str]:
        """In a worker thread: all rows or none, except those that SQLite cannot hold: returns why, one each."""
        refused: list[str] = []
        with transaction(connection):
            for row in batch:
                try:
                    connection.execute(rows.INSERT, rows.encode(row, self._storage))
                except _ROW_ERRORS as error:
                    refused.append(f"id={row.sample_id} error={error!r}")
            _prune(connection, self._max_rows, batch[-1].at - self._max_age_s)
        return refused

    async def _read(self, work: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """`nothing` where there is no file to ask."""
        async with self._lock:
            if self._connection is None:
                return nothing
            return await self._end_of(self._loop.run_in_executor(None, work, self._connection))

    async def _end_of(self, job: asyncio.Future[T]) -> T:
        """The job's result. A thread cannot be cancelled, so a cancelled caller waits for it too before it goes: the
        next one must not share its connection."""
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            while not job.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((job,))
            job.exception()  # it has been seen
            raise

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if self._on_dropped is not None:
            self._on_dropped(reason)


def _open(path: Path) -> sqlite3.Connection:
    """In a worker thread. ConfigError names the path."""
    try:
        connection = opened_private(path, busy_timeout_s=_BUSY_TIMEOUT_S)  # it may hold prompts
    except OSError as error:
        raise ConfigError([f"journal {path}: {error.strerror}; it must be a file that can be written"]) from error
    try:
        _refuse_others(connection, path)
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError([f"journal {path}: {_what_is_wrong(error)}"]) from error
    except ConfigError:
        connection.close()
        raise
    return connection


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    """ConfigError for a database that is not ours to write. Only reads."""
    application_id, version, names = identity(connection)
    if not (application_id or version or names):
        return
    if application_id != rows.APPLICATION_ID:
        raise ConfigError([f"journal {path}: it is another program's database; choose another path"])
    if not rows.is_known(version):
        raise ConfigError(
            [
                f"journal {path}: its schema is version {version}, this proxy knows {rows.SCHEMA_VERSION}; choose "
                "another path, or run the proxy that wrote it"
            ]
        )
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigError([f"journal {path}: no write-ahead log there; it must be a file on a local disk"])
    # With a write-ahead log NORMAL loses nothing when the process dies, only the last rows when the host does.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # pruned prompts must not stay in free pages
    connection.execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")
    with transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for statement in rows.statements(version):
            connection.execute(statement)


def _what_is_wrong(error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"{error}; it must be a file that can be written, and that no other program has locked"
    return f"it is damaged or no SQLite file ({error}); move it away to begin a new one, or choose another path"


def _prune(connection: sqlite3.Connection, max_rows: int, oldest_at: float) -> int:
    """How many rows went."""
    old = connection.execute("DELETE FROM samples WHERE at < ?", (oldest_at,))
    beyond = connection.execute("DELETE FROM samples WHERE seq <= (SELECT max(seq) FROM samples) - ?", (max_rows,))
    return old.rowcount + beyond.rowcount


def _prune_alone(connection: sqlite3.Connection, max_rows: int, oldest_at: float) -> None:
    with transaction(connection):
        gone = _prune(connection, max_rows, oldest_at)
    if gone:  # the write-ahead log still has their pages, and on a quiet proxy nothing would write over them
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
