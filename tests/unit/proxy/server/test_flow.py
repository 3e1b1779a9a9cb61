"""Who waits for a slow client, on a connection that is none."""

import asyncio

from tests.support.in_memory import Line, settled

from ppd_proxy.server.flow import Flow


async def test_nobody_waits_for_a_client_that_reads():
    flow = Flow(Line("a", asyncio.Protocol()))
    async with asyncio.timeout(0):
        await flow.drain()


async def test_all_who_wait_go_on_when_the_client_has_taken_enough_and_wait_again_when_it_has_not():
    flow, went_on = Flow(Line("a", asyncio.Protocol())), []

    async def write(number):
        await flow.drain()
        went_on.append(number)

    async with asyncio.TaskGroup() as group:
        for expected in ([1, 2], [1, 2, 1, 2]):
            flow.pause_writing()
            for number in (1, 2):
                group.create_task(write(number))
            await settled()
            assert len(went_on) == len(expected) - 2
            flow.resume_writing()
            await settled()
            assert went_on == expected
