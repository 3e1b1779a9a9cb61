import os
import sqlite3
import stat

import pytest

from ppd_shell.sqlite import identity, opened_private, transaction


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept.db"


@pytest.fixture
def connection(path):
    connection = opened_private(path, busy_timeout_s=1)
    yield connection
    connection.close()


def test_what_is_made_is_its_owners_alone_with_its_log(path, connection):
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE a (b)")
    for name in (path, f"{path}-wal", f"{path}-shm"):
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600


def test_what_cannot_be_made_is_said_by_the_system(tmp_path):
    with pytest.raises(IsADirectoryError):
        opened_private(tmp_path, busy_timeout_s=1)


def test_a_file_that_is_not_to_be_made_keeps_its_rights(path):
    path.touch()
    path.chmod(0o444)
    opened_private(path, busy_timeout_s=1, is_made=False).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_a_new_file_has_no_identity_and_a_used_one_has(connection):
    assert identity(connection) == (0, 0, frozenset())
    connection.execute("PRAGMA application_id = 7")
    connection.execute("PRAGMA user_version = 3")
    connection.execute("CREATE TABLE a (b)")
    assert identity(connection) == (7, 3, frozenset({"a"}))


def insert(connection, *values):
    with transaction(connection):
        for value in values:
            connection.execute("INSERT INTO a VALUES (?)", (value,))


def test_a_transaction_is_written_whole_or_not_at_all(connection):
    connection.execute("CREATE TABLE a (b UNIQUE)")
    insert(connection, 1)
    with pytest.raises(sqlite3.IntegrityError):
        insert(connection, 2, 1)
    assert [row["b"] for row in connection.execute("SELECT b FROM a")] == [1]


def test_what_sqlite_has_ended_itself_is_not_ended_again(connection):
    connection.execute("CREATE TABLE a (b UNIQUE ON CONFLICT ROLLBACK)")
    with pytest.raises(sqlite3.IntegrityError):
        insert(connection, 1, 1)
    assert not connection.in_transaction
