"""Requests one after the other on one connection: each hears of its client, whatever the one before still does."""

import asyncio
import json

from tests.support.cluster import LIMIT_S, running_cluster, until
from tests.support.raw_client import chat, raw

from ppd_proxy.config.sections import Limits, Server
from ppd_sim.faults import Fault

REFUSED_THEN_STUCK = (
    Fault(kind="status", status=400, nth=1),  # before it took the KV, which the next leg has it take
    Fault(kind="hang", nth=2),
    Fault(kind="stall_after", nth=3, chunks=1),
)


async def behind_one_that_gives_kv_back(cluster, client):
    """Start a stream behind a refused request that is still giving its KV back, and wait until that is over."""
    cluster.decode.faults.add(*REFUSED_THEN_STUCK)
    await client.send(chat())
    assert (await client.answer()).status == 400
    await client.send(chat(stream=True))
    async with asyncio.timeout(LIMIT_S):
        await client.reader.readuntil(b'"content"')
    requests = cluster.runtime._server._door.requests
    assert requests.count == 2
    await until(lambda: requests.count == 1)


async def test_a_stream_behind_a_request_that_gives_kv_back_hears_that_its_client_left():
    async with running_cluster(limits=Limits(release_grace_s=0.2)) as cluster:
        async with raw(cluster.url) as client:
            await behind_one_that_gives_kv_back(cluster, client)
        await until(lambda: not any(cluster.runtime.load.requests.values()))


async def test_a_stream_behind_a_request_that_gives_kv_back_ends_with_an_error_event_at_the_end():
    server = Server(drain_s=0, shutdown_grace_s=0)
    async with running_cluster(server=server, limits=Limits(release_grace_s=0.2)) as cluster:
        async with raw(cluster.url) as client:
            await behind_one_that_gives_kv_back(cluster, client)
            cluster.runtime.ask_to_stop()
            said = await client.rest()
        event = said.rpartition(b"data: ")[2].partition(b"\n")[0]
        assert json.loads(event)["error"]["reason"] == "stopping"
