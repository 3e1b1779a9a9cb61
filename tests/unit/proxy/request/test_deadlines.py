"""Many deadlines on one timer: each passes once, after its time, unless it was given up."""

import asyncio

from tests.support.scripted import LIMIT_S

from ppd_proxy.request.deadlines import SLOT_S, Deadlines


class Waiting:
    def __init__(self):
        self.passed = asyncio.Event()
        self.count = 0
        self.at = 0.0

    def pass_deadline(self):
        self.at = asyncio.get_running_loop().time()
        self.count += 1
        self.passed.set()


async def test_a_deadline_passes_once_and_not_before_its_time():
    loop = asyncio.get_running_loop()
    deadlines, waiting, later = Deadlines(loop), Waiting(), Waiting()
    since = loop.time()
    deadlines.set(waiting, 0.1)
    deadlines.set(later, 0.1 + 3 * SLOT_S)
    async with asyncio.timeout(LIMIT_S):
        await waiting.passed.wait()
        await later.passed.wait()
    assert since + 0.1 <= waiting.at < later.at
    assert waiting.count == later.count == 1


async def test_what_was_given_up_does_not_pass():
    deadlines, given_up, other = Deadlines(asyncio.get_running_loop()), Waiting(), Waiting()
    slot = deadlines.set(given_up, 0.0)
    deadlines.set(other, 2 * SLOT_S)
    deadlines.give_up(given_up, slot)
    deadlines.give_up(given_up, slot)
    async with asyncio.timeout(LIMIT_S):
        await other.passed.wait()
    assert not given_up.count
    deadlines.give_up(other, slot + 100)


async def test_a_deadline_may_be_set_while_another_passes():
    deadlines, second = Deadlines(asyncio.get_running_loop()), Waiting()

    class First(Waiting):
        def pass_deadline(self):
            deadlines.set(second, 0.0)

    deadlines.set(First(), 0.0)
    async with asyncio.timeout(LIMIT_S):
        await second.passed.wait()


async def test_nothing_ticks_when_nobody_waits():
    loop = asyncio.get_running_loop()
    deadlines, waiting = Deadlines(loop), Waiting()
    deadlines.set(waiting, 0.0)
    async with asyncio.timeout(LIMIT_S):
        await waiting.passed.wait()
    assert deadlines._timer is None
