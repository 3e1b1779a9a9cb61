"""What becomes of legs at an engine that was found dead."""

import asyncio
import math

import pytest
from tests.support.scripted import BODY, HEAD, LIMIT_S, Line, scripted

from ppd_proxy.upstream.pool import Pool
from ppd_wire.errors import EngineFailure, Failure

DEAD = EngineFailure("dead", reason=Failure.ENGINE_ERROR)


class Waiting:
    """A receiver whose answer began at `heard_at`, or not at all."""

    def __init__(self, heard_at=None):
        self.is_answering = heard_at is not None
        self.heard_at = heard_at or 0.0
        self.failure = None

    def on_failure(self, failure, *, is_untouched):
        assert not is_untouched  # it would be sent to the same engine again
        self.failure = failure


@pytest.fixture
async def pool():
    pool = Pool(asyncio.get_running_loop(), connect_timeout_s=LIMIT_S)
    yield pool
    pool.close()


async def silence(line: Line):
    await line.request()
    await line.gone()


async def opened(pool, engine, *receivers):
    for receiver in receivers:
        (await pool.connect(engine.origin)).request(HEAD, BODY, receiver)


@pytest.mark.parametrize(
    ("silent_since", "is_broken"),
    [(-math.inf, False), (100.0, False), (101.0, True)],
    ids=["a silent engine", "a stream that was heard since", "a stream that was not"],
)
async def test_what_waits_fails_and_streams_only_if_they_are_silent(pool, silent_since, is_broken):
    async with scripted(silence) as dead, scripted(silence) as other:
        waiting, streaming, elsewhere = Waiting(), Waiting(heard_at=100.0), Waiting()
        await opened(pool, dead, waiting, streaming)
        await opened(pool, other, elsewhere)
        pool.give_up(dead.origin, DEAD, silent_since=silent_since)
        assert waiting.failure is DEAD
        assert streaming.failure is (DEAD if is_broken else None)
        assert elsewhere.failure is None
        pool.close()


async def test_the_last_bytes_of_any_connection_tell_when_an_engine_spoke(pool):
    async with scripted(silence) as engine:
        assert pool.heard_at(engine.origin) == 0.0
        await opened(pool, engine, Waiting(), Waiting(heard_at=100.0), Waiting(heard_at=50.0))
        assert pool.heard_at(engine.origin) == 100.0
        pool.close()
