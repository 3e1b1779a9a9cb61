"""Engines that fail fast, and engines that stop: the traffic goes to those that work."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from tests.support.cluster import LIMIT_S, assistant, running_cluster, running_proxy, until, user
from tests.support.processes import engine_process

from ppd_core.fleet.signs import FAILED_RUN, TRIAL_INTERVAL_S
from ppd_core.policy.retry_budget import PER_SECOND, WINDOW_S
from ppd_proxy.config.sections import Discovery, Engines, Limits
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

SOON = Discovery(discovery_port=0, probe_interval_s=0.1, probe_timeout_s=0.1)
FAILS = Fault(kind="status", path="/v1/")


async def in_batches(cluster, count, size):
    """The statuses of so many chats, `size` at a time."""
    statuses = []
    for first in range(0, count, size):
        asked = (cluster.chat(f"Hi {number}") for number in range(first, first + size))
        statuses += [reply.status for reply in await asyncio.gather(*asked)]
    return statuses


@pytest.mark.parametrize("at_once", [1, 8, 80])
async def test_two_of_three_decode_engines_that_fail_at_once_cost_hardly_a_request(at_once):
    async with running_cluster(decode=3) as cluster:
        for engine in cluster.decodes[:2]:
            engine.faults.add(FAILS)
        statuses = await in_batches(cluster, 80, at_once)
        assert statuses.count(200) >= 75, statuses
        failing = sum(engine.faults.hits() for engine in cluster.decodes[:2])
        assert failing <= 80  # what fails does not look idle
        assert not any(cluster.runtime.load.requests.values())


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_where_all_engines_of_a_role_fail_an_aggregated_one_serves(role):
    async with running_cluster(aggregated=1) as cluster:
        (failing,) = getattr(cluster, f"{role}s")
        failing.faults.add(FAILS)
        replies = [await cluster.chat(f"Hi {number}") for number in range(3 * FAILED_RUN)]
        assert {(reply.status, reply.route) for reply in replies} == {(200, "aggregated")}
        assert failing.faults.hits() <= FAILED_RUN + 3  # and then the trials
        assert not any(cluster.runtime.load.requests.values())


async def test_without_retries_an_engine_that_fails_fast_does_not_attract_the_traffic():
    """It has nothing in flight, but for a while what failed counts as load."""
    slow = {"timing": TimingConfig(decode_ms_per_token=2)}
    async with running_cluster(decode=3, engine=slow, limits=Limits(retries=0)) as cluster:
        for engine in cluster.decodes[:2]:
            engine.faults.add(FAILS)
        statuses = await in_batches(cluster, 80, 4)
        assert statuses.count(200) >= 72, statuses


async def test_an_unhealthy_engine_is_seen_as_such_gets_a_trial_and_is_back_with_one_good_answer():
    async with running_cluster(aggregated=2, prefill=0, decode=0) as cluster:
        bad, good = cluster.aggregated
        bad.faults.add(FAILS)
        cluster.runtime.load.reserve(good.http_address, 10**9)  # whatever can, goes to the bad one
        for number in range(FAILED_RUN):
            assert (await cluster.chat(f"Hi {number}")).status == 200
        (told,) = [each for each in (await cluster.ask("/engines")).json["engines"] if each["id"] == bad.http_address]
        assert told["state"] == "unhealthy"
        samples = await cluster.samples()
        label = f'{{engine="{bad.http_address}",role="aggregated"}}'
        assert (samples[f"ppd_engine_unhealthy{label}"], samples[f"ppd_engine_up{label}"]) == (1, 1)
        assert samples['ppd_engine_changes_total{change="unhealthy",role="aggregated"}'] == 1
        hits = bad.faults.hits()
        for number in range(20):
            assert (await cluster.chat(f"Hello {number}")).status == 200
        assert bad.faults.hits() - hits <= 1 + TRIAL_INTERVAL_S
        bad.faults.clear()
        incarnation = cluster.runtime.fleet.get(bad.http_address).incarnation
        async with asyncio.timeout(LIMIT_S):
            while cluster.state_of(bad) != "up":
                await cluster.chat("Hi", max_tokens=1)
        assert cluster.runtime.fleet.get(bad.http_address).incarnation == incarnation


async def test_a_client_mistake_does_not_make_an_engine_unhealthy():
    async with running_cluster() as cluster:
        for fault in (Fault(kind="status", status=422), Fault(kind="status", message="maximum context length is 4096")):
            cluster.prefill.faults.clear()
            cluster.prefill.faults.add(fault)
            for number in range(2 * FAILED_RUN):
                assert (await cluster.chat(f"Hi {number}")).status in (400, 422)
            assert cluster.state_of(cluster.prefill) == "up"


async def test_a_direct_turn_goes_elsewhere_while_its_home_is_unhealthy_and_comes_home_after():
    async with running_cluster(decode=2) as cluster:
        opener = [user("Hello")]
        first = await cluster.chat(opener)
        home = next(engine for engine in cluster.decodes if engine.requests)
        fleet, now = cluster.runtime.fleet, asyncio.get_running_loop().time()
        for _ in range(FAILED_RUN):
            fleet.answered(home.http_address, "status 500", now)
        second = await cluster.chat([*opener, assistant(first.text), user("Go on.")])
        assert (second.status, second.route, second.reason) == (200, "pd", "home_unhealthy")
        fleet.answered(home.http_address, None, now)
        third = await cluster.chat([*opener, assistant(first.text), user("Or on.")])
        assert (third.route, third.reason) == ("direct", "known_history")


async def test_every_engine_is_tried_before_a_request_fails():
    async with running_cluster(prefill=4, decode=4) as cluster:
        for engine in (*cluster.prefills[:3], *cluster.decodes[:3]):
            engine.faults.add(FAILS)
        assert {(await cluster.chat(f"Hi {number}")).status for number in range(10)} == {200}


async def test_a_ceiling_of_retries_holds():
    async with running_cluster(aggregated=4, prefill=0, decode=0, limits=Limits(retries=2)) as cluster:
        for engine in cluster.aggregated:
            engine.faults.add(FAILS)
        assert (await cluster.chat("Hi")).status == 500
        assert sum(engine.faults.hits() for engine in cluster.aggregated) == 3


async def test_without_a_ceiling_each_engine_is_asked_once_and_the_last_failure_is_the_answer():
    async with running_cluster(aggregated=4, prefill=0, decode=0) as cluster:
        for engine in cluster.aggregated:
            engine.faults.add(FAILS)
        assert (await cluster.chat("Hi")).status == 500
        assert [engine.faults.hits() for engine in cluster.aggregated] == [1] * 4


async def test_retries_beyond_the_budget_are_refused_counted_and_said(capsys):
    """Ten engines that all fail would multiply the load by ten."""
    async with running_cluster(aggregated=10, prefill=0, decode=0) as cluster:
        for engine in cluster.aggregated:
            engine.faults.add(FAILS)
        requests = 60
        assert set(await in_batches(cluster, requests, 10)) == {500}
        samples = await cluster.samples()
        made, refused = (samples[f'ppd_retries_total{{result="{result}"}}'] for result in ("made", "refused"))
        assert made <= PER_SECOND * WINDOW_S + 0.2 * requests
        assert sum(engine.faults.hits() for engine in cluster.aggregated) == requests + made
        assert refused > 0
    assert "not tried again: too many retries in the last 10 s" in capsys.readouterr().err


@asynccontextmanager
async def two_of(role, slow):
    """A proxy before two engines of `role` that take 400 ms for what `slow` says, one of them a process of its own that
    can be stopped, and one of the other role."""
    other = "decode" if role == "prefill" else "prefill"
    timing = TimingConfig(**{f"{slow}_fixed_ms": 400.0})
    async with (
        engine_process(role, f"--{slow}-fixed-ms", "400") as one,
        running_engine(EngineConfig(role=role, timing=timing)) as two,
        running_engine(EngineConfig(role=other)) as partner,
    ):
        engines = Engines(**{role: (one.url, two.url), other: (partner.url,)})
        async with running_proxy(engines=engines, discovery=SOON) as cluster:
            yield cluster, one


@pytest.mark.parametrize(("role", "slow"), [("prefill", "prefill"), ("decode", "transfer")])
async def test_requests_that_wait_at_a_stopped_engine_are_answered_by_another_one_soon(role, slow):
    async with two_of(role, slow) as (cluster, stopped):
        fleet, load, loop = cluster.runtime.fleet, cluster.runtime.load, asyncio.get_running_loop()
        asked = [cluster.tasks.spawn(cluster.chat(f"Hi {number}")) for number in range(8)]
        await until(lambda: load.requests.get(stopped.id, 0) == 4)
        stopped.stop()
        await until(lambda: fleet.get(stopped.id).state == "down")
        found_at = loop.time()
        replies = await asyncio.gather(*asked)
        assert [reply.status for reply in replies] == [200] * 8
        assert loop.time() - found_at < 5.0
        stopped.go_on()
        await until(lambda: fleet.get(stopped.id).state == "up")
