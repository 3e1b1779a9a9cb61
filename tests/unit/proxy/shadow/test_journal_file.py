import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.journal import NAN, directly, row

from ppd_accuracy.verdicts.rows import SCHEMA_VERSION
from ppd_proxy.shadow.journal import Journal
from ppd_shell.settings import ConfigError

LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def _whoever_waits_for_a_lock_waits_for_less_than_a_second(monkeypatch):
    monkeypatch.setattr("ppd_proxy.shadow.journal._BUSY_TIMEOUT_S", 0.05)


# Writing


async def test_the_writer_writes_what_comes(opened):
    journal = await opened()
    task = asyncio.get_running_loop().create_task(journal.run())
    async with asyncio.timeout(LIMIT_S):
        for number in range(2):
            journal.add(row(number))
            while await journal.get(f"r{number}") is None:
                pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await journal.count() == 2


async def test_what_grows_too_old_goes_where_nothing_new_comes(opened, path, monkeypatch):
    monkeypatch.setattr("ppd_proxy.shadow.journal.PRUNE_INTERVAL_S", 0.002)
    journal = await opened(max_age_s=60)
    for number in range(2):
        journal.add(row(number, at=1000.0 + 30 * number))
    await journal.flush()
    now = 1050.0
    task = asyncio.get_running_loop().create_task(journal.forget(lambda: now))
    async with asyncio.timeout(LIMIT_S):
        for left, later in ((2, 1061.0), (1, 1100.0), (0, 0.0)):
            while await journal.count() > left:
                pass
            now = later
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(b"SECRET" not in file.read_bytes() for file in path.parent.iterdir())


async def test_a_journal_that_cannot_be_pruned_now_is_pruned_later(opened, path, monkeypatch, caplog):
    monkeypatch.setattr("ppd_proxy.shadow.journal.PRUNE_INTERVAL_S", 0.002)
    journal = await opened(max_age_s=60)
    journal.add(row())
    await journal.flush()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.get_running_loop().create_task(journal.forget(lambda: 1e6))
    async with asyncio.timeout(LIMIT_S):
        while "cannot be pruned" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0)
        assert await journal.count() == 1
        other.close()
        while await journal.count():
            pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_adding_does_not_wait_for_the_disk(opened, path):
    journal = await opened()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.get_running_loop().create_task(journal.flush())
    try:
        journal.add(row())
        for number in range(1, 20):
            await asyncio.sleep(0)
            journal.add(row(number))
        assert journal.written == 0
    finally:
        other.close()
        await task
    await journal.flush()
    assert journal.written == 20


async def test_what_cannot_be_written_waits(opened, path, caplog):
    journal = await opened()
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        journal.add(row())
        assert not await journal.flush()
        assert (journal.written, journal.dropped, await journal.count()) == (0, 0, 0)
        assert f"journal cannot be written path={path}" in caplog.text
    finally:
        other.close()
    assert await journal.flush()
    assert (journal.written, await journal.count()) == (1, 1)
    assert "journal is written again" in caplog.text


async def test_a_row_that_sqlite_cannot_hold_does_not_hold_up_the_others(opened, caplog):
    heard = []
    journal = await opened(on_dropped=heard.append)
    journal.add(row(0))
    journal.add(row(1, prompt_tokens=2**70))
    journal.add(row(2, token_ids=[-1]))
    journal.add(row(3, spec={"x": object()}))
    journal.add(row(4))
    assert await journal.flush()
    assert [got["sample_id"] for got in await journal.latest(9)] == ["r4", "r0"]
    assert (journal.written, heard) == (2, ["journal_row"] * 3)
    assert "id=r2" in caplog.text


async def test_a_cancelled_writer_loses_and_doubles_nothing(opened):
    journal = await opened()
    for turn in range(20):
        for number in range(50):
            journal.add(row(turn * 50 + number))
        task = asyncio.get_running_loop().create_task(journal.run())
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await journal.flush()
    assert (journal.written, journal.dropped, await journal.count()) == (1000, 0, 1000)


async def test_reading_and_writing_at_once_get_along(opened):
    journal = await opened()

    async def add_and_read(number):
        journal.add(row(number))
        await journal.flush()
        return (await journal.get(f"r{number}"))["sample_id"]

    async with asyncio.timeout(LIMIT_S):
        found = await asyncio.gather(*(add_and_read(number) for number in range(30)))
    assert found == [f"r{number}" for number in range(30)]
    assert journal.written == 30


async def test_closing_writes_what_waits(opened):
    first = await opened()
    first.add(row())
    await first.close()
    await first.close()
    first.add(row(1))
    assert first.dropped == 1
    assert await first.get("r0") is None
    assert await (await opened()).count() == 1


async def test_closing_says_what_could_not_be_written(opened, path, caplog):
    heard = []
    journal = await opened(on_dropped=heard.append)
    journal.add(row())
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        await journal.close()
    finally:
        other.close()
    assert "journal closed with 1 rows unwritten" in caplog.text
    assert heard == ["journal_closed"]


def told_before_it_was_killed(path):
    """How many rows a process said were written; it is killed while it writes."""
    program = Path(__file__).with_name("journal_writer.py")
    writer = subprocess.Popen([sys.executable, str(program), str(path)], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(5):
            writer.stdout.readline()
    finally:
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        writer.stdout.close()
        writer.wait()
    whole = [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    return max(250, *whole, 0)


async def test_what_was_written_survives_a_kill(opened, path):
    told = await asyncio.to_thread(told_before_it_was_killed, path)
    journal = await opened()
    assert directly(path, "PRAGMA integrity_check") == [("ok",)]
    assert await journal.count() >= told
    for number in (0, told - 1):
        assert len((await journal.get(f"r{number}"))["token_ids"]) == 300
    journal.add(row(sample_id="after"))
    assert await journal.flush()


# Files that are refused


async def refusal(path, **options):
    limits = {"max_rows": 10, "max_age_s": 60, "storage": "tokens"}
    with pytest.raises(ConfigError) as refused:
        await Journal.open(path, **limits | options)
    return str(refused.value)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_text("dear diary, " * 500)
    message = await refusal(path)
    assert str(path) in message
    assert "no SQLite file" in message
    assert path.read_text().startswith("dear diary")


async def test_another_programs_database_is_refused_and_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE samples (x)")
    connection.close()
    before = path.read_bytes()
    message = await refusal(path)
    assert str(path) in message
    assert "another program's database" in message
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


async def test_a_journal_of_an_older_version_is_taken_over(opened, path):
    journal = await opened()
    journal.add(row(1))
    await journal.close()
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE samples DROP COLUMN spread")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    journal = await opened()
    journal.add(row(2, spread={"positions": 3}))
    await journal.flush()
    found = {each["sample_id"]: each["spread"] for each in await journal.latest(9)}
    assert found == {"r1": None, "r2": {"positions": 3}}
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


async def test_a_newer_schema_is_refused(opened, path):
    await (await opened()).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    message = await refusal(path)
    assert str(path) in message
    assert f"version {SCHEMA_VERSION + 1}, this proxy knows {SCHEMA_VERSION}" in message


async def test_a_damaged_file_is_refused(opened, path):
    journal = await opened()
    for number in range(200):
        journal.add(row(number))
    await journal.close()
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    message = await refusal(path)
    assert str(path) in message
    assert "damaged" in message


async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing" / "journal.db"):
        message = await refusal(path)
        assert f"journal {path}: " in message
        assert "must be a file that can be written" in message


async def test_a_locked_file_is_refused(path):
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        assert "no other program has locked" in await refusal(path)
    finally:
        other.close()


async def test_an_empty_file_is_taken(opened, path):
    path.touch()
    assert await (await opened()).count() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rows": 0}, "max_rows is 0; it must be above 0"),
        ({"max_age_s": NAN}, "max_age_s is nan; it must be above 0"),
        ({"storage": "all"}, "storage is 'all'; it must be one of none, hashes, tokens, text"),
    ],
)
async def test_settings_that_make_no_sense_are_refused(path, options, message):
    assert message in await refusal(path, **options)
    assert not path.exists()
