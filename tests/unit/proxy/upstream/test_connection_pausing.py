"""When an engine is not read: its client reads too slowly, or others wait for their turn."""

import asyncio

import pytest
from tests.support.scripted import OK, SSE_HEAD, chunk
from tests.support.wire import Line

from ppd_proxy.upstream.connection import TURN_BYTES


@pytest.fixture
def line():
    return Line()


def test_reading_pauses_and_goes_on_by_itself_after_the_answer(line):
    line.ask()
    line.hear(OK[:-1])
    line.connection.pause()
    assert not line.wire.is_read
    line.connection.resume()
    assert line.wire.is_read
    line.connection.pause()
    line.hear(OK[-1:])
    assert line.wire.is_read
    assert line.idle


def test_a_closed_connection_is_neither_paused_nor_resumed(line):
    line.connection.close()
    line.connection.pause()
    assert line.wire.is_read
    assert not line.connection.is_open


# Others' turns


async def test_a_connection_that_brings_much_at_once_is_read_on_when_others_had_their_turn(line):
    receiver = line.ask()
    line.hear(SSE_HEAD)
    line.hear(chunk(b"x" * TURN_BYTES))
    assert not line.wire.is_read
    await asyncio.sleep(0)
    assert line.wire.is_read
    line.hear(chunk(b"y"))
    assert line.wire.is_read
    assert len(receiver.body) == TURN_BYTES + 1


async def test_others_turns_do_not_end_the_pause_that_a_receiver_asked_for(line):
    line.ask()
    line.hear(SSE_HEAD, chunk(b"x" * TURN_BYTES))
    line.connection.pause()
    await asyncio.sleep(0)
    assert not line.wire.is_read
    line.connection.resume()
    assert line.wire.is_read
