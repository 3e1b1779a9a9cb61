import asyncio

import aiohttp
import pytest

from ppd_shell.tasks import Tasks
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine

LIMIT_S = 30


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def engine():
    async with running_engine(EngineConfig(role="aggregated")) as started:
        yield started


@pytest.fixture
async def spawn():
    """Starts a coroutine beside the test."""
    tasks = Tasks(asyncio.get_running_loop())
    yield tasks.spawn
    await tasks.stop()


@pytest.fixture
def until():
    """Waits until a condition on a simulated engine holds."""

    async def wait(condition):
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # noqa: ASYNC110 - the engine's counters have no events
                await asyncio.sleep(0)

    return wait
