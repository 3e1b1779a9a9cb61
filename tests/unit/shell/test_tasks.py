"""Work in the background: kept, watched, and ended."""

import asyncio
import logging

import pytest

from ppd_shell.tasks import Tasks


@pytest.fixture
async def tasks():
    tasks = Tasks(asyncio.get_running_loop())
    yield tasks
    await tasks.stop()


async def failing():
    raise KeyError("lost")


async def test_rest_waits_for_all_that_was_spawned_and_for_what_that_spawns(tasks):
    done = []

    async def second():
        done.append(2)

    async def first():
        await asyncio.sleep(0)
        done.append(1)
        tasks.spawn(second())

    tasks.spawn(first())
    assert tasks.count == 1
    await tasks.rest()
    assert (done, tasks.count) == ([1, 2], 0)


async def test_a_failure_is_logged_with_its_name_and_ends_nothing_else(tasks, caplog):
    with caplog.at_level(logging.ERROR, "ppd_shell.tasks"):
        tasks.spawn(failing(), name="writer")
        await tasks.rest()
    [record] = caplog.records
    assert record.getMessage() == "task failed name=writer"
    assert record.exc_info[0] is KeyError


async def test_what_still_runs_is_cancelled_and_waited_for(tasks, caplog):
    ended = []

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    tasks.spawn(endless())
    await asyncio.sleep(0)
    await tasks.stop()
    assert (ended, tasks.count, caplog.records) == ([True], 0, [])
