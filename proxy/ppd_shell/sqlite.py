"""SQLite files that hold what nobody else may read. Whoever opens one words what is wrong with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path


def opened_private(path: Path, *, busy_timeout_s: float, is_made: bool = True) -> sqlite3.Connection:
    """A connection for one thread at a time, that begins transactions only when told to. A file that is made is its
    owner's alone; SQLite gives its -wal and -shm files the same rights. Raises OSError and sqlite3.Error."""
    if is_made:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def identity(connection: sqlite3.Connection) -> tuple[int, int, frozenset[str]]:
    """Application id, version of the schema, and the names of tables, indexes and the like; nothing of each in a new
    file. Only reads."""
    application_id, version = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")
    )
    names = frozenset(row[0] for row in connection.execute("SELECT name FROM sqlite_master"))
    return application_id, version, names


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, such as a full disk, have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
