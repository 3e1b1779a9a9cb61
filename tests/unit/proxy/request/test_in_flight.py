"""The requests that are being served: counted, waited for, ended."""

import asyncio

import pytest

from ppd_proxy.request.in_flight import InFlight
from ppd_shell.tasks import Tasks

LIMIT_S = 10.0


class Request:
    def __init__(self, in_flight):
        self._in_flight = in_flight
        in_flight.add(self)

    def close(self):
        self._in_flight.remove(self)


@pytest.fixture
async def in_flight():
    return InFlight(Tasks(asyncio.get_running_loop()))


async def test_whoever_waits_is_told_when_the_last_has_ended(in_flight):
    requests = [Request(in_flight) for _ in range(2)]
    work = asyncio.Event()
    in_flight.tasks.spawn(work.wait())
    assert in_flight.count == 3
    resting = Tasks(in_flight.tasks.loop).spawn(in_flight.rest())
    for ends in (*[request.close for request in requests], work.set):
        await asyncio.sleep(0)
        assert not resting.done()
        ends()
    async with asyncio.timeout(LIMIT_S):
        await resting
    assert in_flight.count == 0


async def test_what_does_not_end_by_itself_is_ended(in_flight):
    Request(in_flight)
    in_flight.tasks.spawn(asyncio.Event().wait())
    async with asyncio.timeout(LIMIT_S):
        await in_flight.stop()
    assert in_flight.count == 0
