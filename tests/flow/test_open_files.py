"""Few open files: who is connected is served, who is not waits, and no engine is blamed."""

import asyncio
import json
import os
import resource
import sys
from contextlib import AsyncExitStack, contextmanager

from tests.support.cluster import LIMIT_S, running_cluster, until
from tests.support.raw_client import chat, raw, request

from ppd_proxy.config.sections import Server
from ppd_proxy.server import listening
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine


@contextmanager
def open_files(limit):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def connected(stack, url, count):
    return [await stack.enter_async_context(raw(url)) for _ in range(count)]


def test_engines_keep_their_share_of_the_open_files():
    assert listening.most_clients(65536) == 27280
    assert listening.most_clients(20000) > 8000
    assert listening.most_clients(256) == 80
    assert listening.most_clients(20) == listening.LEAST_CLIENTS


async def full_cluster(stack, monkeypatch, **server):
    monkeypatch.setattr(listening, "LEAST_CLIENTS", 3)
    monkeypatch.setattr(listening, "FILES_OF_OUR_OWN", 1 << 20)
    cluster = await stack.enter_async_context(running_cluster(server=Server(**server)))
    clients = await connected(stack, cluster.url, 3)
    await until(lambda: len(cluster.runtime._server._door.connections) == 3)
    return cluster, clients


async def test_beyond_their_share_clients_wait_until_another_leaves(monkeypatch):
    async with AsyncExitStack() as stack:
        cluster, clients = await full_cluster(stack, monkeypatch)
        (waiting,) = await connected(stack, cluster.url, 1)
        await waiting.send(chat())
        for client in clients:
            await client.send(request(target="/ready"))
            assert (await client.answer()).status == 200
        assert cluster.decode.requests == []
        clients[0].writer.close()
        assert (await waiting.answer()).status == 200


async def test_clients_that_only_keep_their_connections_leave_for_those_who_wait(monkeypatch):
    monkeypatch.setattr(listening, "IDLE_ENOUGH_S", 0.1)
    async with AsyncExitStack() as stack:
        cluster, clients = await full_cluster(stack, monkeypatch, head_timeout_s=0.4)
        (waiting,) = await connected(stack, cluster.url, 1)
        await waiting.send(chat())
        assert (await waiting.answer()).status == 200
        assert await clients[0].rest() == b""


async def test_without_a_file_for_it_a_client_waits_and_the_proxy_goes_on(caplog, monkeypatch):
    monkeypatch.setattr(listening, "PAUSE_S", 0.2)
    async with running_cluster() as cluster, AsyncExitStack() as stack:
        (client,) = await connected(stack, cluster.url, 1)
        spare = os.dup(0)
        with open_files(spare + 1):  # a socket for the client's side, none for the proxy's
            os.close(spare)
            (waiting,) = await connected(stack, cluster.url, 1)
            await waiting.send(request())
            for _ in range(3):
                await client.send(request())
                assert (await client.answer()).status == 200
        assert json.loads((await waiting.answer()).body) == {"status": "ok"}
        said = [record for record in caplog.records if "no more clients are taken in" in record.getMessage()]
        assert 1 <= len(said) <= 3, "it tries again now and then, not at once"
        assert {cluster.state_of(engine) for engine in cluster.engines} == {"up"}


async def test_three_hundred_idle_clients_and_256_files_take_no_engine_down():
    async with running_engine(EngineConfig(role="aggregated")) as engine, AsyncExitStack() as stack:
        command = (
            f"ulimit -n 256; exec {sys.executable} -m ppd_proxy.cli.main serve --host 127.0.0.1 --port 0"
            f" --discovery-port 0 --aggregated {engine.url} --probe-interval-s 0.2 --drain-s 0 --shutdown-grace-s 0"
        )
        process = await asyncio.create_subprocess_shell(command, stderr=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(LIMIT_S):
                said = await process.stderr.readuntil(b"listening on ") + await process.stderr.readuntil(b" ")
                url = said.rsplit(b"listening on ", 1)[1].decode().strip()
                first, *_ = await connected(stack, url, 300)
                probes = engine.counts.requests["/health"]
                await until(lambda: engine.counts.requests["/health"] >= probes + 5)
                await first.send(request(target="/engines"))
                (known,) = json.loads((await first.answer()).body)["engines"]
                assert known["state"] == "up"
                await first.send(chat())
                assert (await first.answer()).status == 200
                await stack.aclose()
                async with raw(url) as client:
                    await client.send(chat())
                    assert (await client.answer()).status == 200
        finally:
            process.kill()
            await process.wait()
