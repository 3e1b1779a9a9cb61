import asyncio

import pytest

from ppd_sim.timing import PrefillLane, Slots, TimingConfig


def test_nothing_takes_time_by_default():
    timing = TimingConfig()
    assert (timing.prefill_s(1000, 0), timing.transfer_s(1000)) == (0.0, 0.0)


def test_rates_and_fixed_times_add_up():
    timing = TimingConfig(
        prefill_tokens_per_s=1000,
        append_prefill_tokens_per_s=500,
        prefill_fixed_ms=10,
        transfer_bytes_per_s=1e6,
        transfer_fixed_ms=5,
        kv_bytes_per_token=1000,
    )
    assert timing.prefill_s(100, 0) == pytest.approx(0.11)
    assert timing.prefill_s(100, 16) == pytest.approx(0.21)
    assert timing.transfer_s(100) == pytest.approx(0.105)
    assert TimingConfig(prefill_tokens_per_s=1000).prefill_s(100, 16) == pytest.approx(0.1)


async def test_slots_serve_in_order_of_arrival(spawn, until):
    slots, order = Slots(1), []

    async def use(name):
        await slots.acquire()
        order.append(name)

    await slots.acquire()
    for name in ("first", "second"):
        spawn(use(name))
    await until(lambda: slots.waiting == 2)
    slots.release()
    await until(lambda: order == ["first"])
    slots.release()
    await until(lambda: order == ["first", "second"])
    assert (slots.running, slots.waiting) == (1, 0)


async def test_a_waiter_that_leaves_takes_no_slot(spawn, until):
    slots = Slots(1)
    await slots.acquire()
    leaving, chosen = spawn(slots.acquire()), spawn(slots.acquire())
    await until(lambda: slots.waiting == 2)
    leaving.cancel()
    await until(leaving.done)
    slots.release()
    chosen.cancel()
    await until(chosen.done)
    assert (slots.running, slots.waiting) == (0, 0)


async def test_prefills_run_one_after_another():
    lane, loop = PrefillLane(), asyncio.get_running_loop()
    started_at = loop.time()
    await asyncio.gather(lane.occupy(0.01), lane.occupy(0.01), lane.occupy(0))
    assert loop.time() - started_at >= 0.02
