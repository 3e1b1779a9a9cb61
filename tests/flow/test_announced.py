"""What announcements may do to a running proxy, and what engines that only announced themselves get to see."""

import asyncio
from contextlib import asynccontextmanager

import msgpack
import pytest
import zmq
from tests.support.cluster import CHAT, LIMIT_S, running_cluster, running_proxy, until, user, zmq_context
from tests.support.scripted import Line, answer, scripted

from ppd_proxy.config.sections import Auth, Discovery, Metrics, Routing
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine

CHATTED = answer(200, b'{"id":"x","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}')
KEYS = {"authorization": "Bearer client", "cookie": "s=client", "x-api-key": "client", "x-session-id": "mine"}
SEEN = ("/health", "/metrics", CHAT, "/v1/models", "/v1/messages")


def discovery(**fields):
    return Discovery(discovery_port=0, probe_interval_s=60.0, **fields)


async def rejected(cluster, reason):
    samples = await cluster.samples()
    return samples.get(f'ppd_announcements_rejected_total{{reason="{reason}"}}', 0)


@asynccontextmanager
async def announcing(cluster):
    """Sends announcements from loopback: `await say(engine, **changes)`."""
    await cluster.runtime.listen_for_announcements(0)
    async with zmq_context() as context:
        socket = context.socket(zmq.DEALER)
        socket.connect(f"tcp://127.0.0.1:{cluster.runtime.discovery_port}")

        async def say(address, **changes):
            facts = {"type": "D", "http_address": address, "zmq_address": "127.0.0.1:666", "ppd": True}
            await socket.send(msgpack.packb(facts | changes))

        yield say


async def refused(cluster, reason, saying):
    """Announce, and wait until it was refused for that reason."""
    before = await rejected(cluster, reason)
    await saying
    async with asyncio.timeout(LIMIT_S):
        while await rejected(cluster, reason) == before:  # every question lets the listener run
            pass


@pytest.mark.parametrize("kind", ["P", "D"])
async def test_one_packet_changes_nothing_about_a_static_engine(kind):
    async with running_cluster(discovery=discovery()) as cluster, announcing(cluster) as say:
        for engine in (cluster.decode, cluster.prefill):
            before = cluster.runtime.fleet.get(engine.http_address)
            await refused(cluster, "named_by_operator", say(engine.http_address, type=kind))
            assert cluster.runtime.fleet.get(engine.http_address) == before
        assert (await cluster.chat("Hi")).decision == "pd;reason=first_turn;turn=1"


async def test_one_packet_changes_nothing_about_a_registered_engine_whichever_came_first():
    async with (
        running_proxy(discovery=discovery()) as cluster,
        running_engine(EngineConfig(role="decode")) as engine,
        announcing(cluster) as say,
    ):
        await say(engine.http_address, type="P")
        await until(lambda: cluster.runtime.fleet.get(engine.http_address))
        record = (await cluster.ask("/engines", {"url": engine.url, "role": "decode"})).json
        wanted = {"role": "decode", "handoff": "nixl", "zmq_address": None, "source": "registered"}
        assert record.items() >= wanted.items()
        await refused(cluster, "named_by_operator", say(engine.http_address, type="P"))
        (listed,) = (await cluster.ask("/engines")).json["engines"]
        assert listed.items() >= wanted.items()


@pytest.mark.parametrize(
    ("allow", "fields", "reason"),
    [
        (("10.0.0.0/8",), {}, "foreign_sender"),
        (("127.0.0.0/8",), {"http_address": "203.0.113.9:80"}, "foreign_address"),
        (("127.0.0.0/8",), {"zmq_address": "203.0.113.9:80"}, "foreign_address"),
        ((), {"http_address": "203.0.113.9:80"}, "foreign_address"),
    ],
)
async def test_engines_of_other_networks_do_not_join(allow, fields, reason):
    settings = discovery(discovery_allow=allow)
    async with running_proxy(discovery=settings) as cluster, announcing(cluster) as say:
        await refused(cluster, reason, say("127.0.0.1:9", **fields))
        assert cluster.runtime.fleet.engines() == ()


async def test_only_so_many_engines_may_announce_themselves():
    async with (
        running_proxy(discovery=discovery(max_announced_engines=3)) as cluster,
        running_engine(EngineConfig(role="decode")) as engine,
        announcing(cluster) as say,
    ):
        for port in range(1, 4):
            await say(f"127.0.0.1:{port}")
        await refused(cluster, "too_many_engines", say("127.0.0.1:4"))
        assert len(cluster.runtime.fleet.engines()) == 3
        assert (await cluster.ask("/engines", {"url": engine.url, "role": "decode"})).json["state"] == "up"


@asynccontextmanager
async def announced_stranger(**fields):
    """A proxy with an engine key in front of one engine that nobody named; gives the heads that the engine saw."""
    heads: dict[str, list[str]] = {}

    async def talk(line: Line) -> None:
        while True:
            head = (await line.request()).partition(b"\r\n\r\n")[0].decode("latin-1")
            path = head.split(" ", 2)[1]
            heads.setdefault(path, []).append(head.lower())
            await line.send(CHATTED if path.startswith("/v1/") else answer(200, b"", "text/plain"))

    settings = discovery(**fields)
    auth, metrics = Auth(engine_api_key="inner"), Metrics(scrape_interval_s=0.1)
    async with (
        scripted(talk) as engine,
        running_proxy(discovery=settings, auth=auth, metrics=metrics) as cluster,
        announcing(cluster) as say,
    ):
        await say(engine.origin.authority)  # a decode engine that takes direct requests answers what is not split
        await until(lambda: cluster.runtime.fleet.view.decode)
        await until(lambda: "/metrics" in heads)
        yield cluster, heads


async def ask_everything(cluster):
    await cluster.ask(CHAT, {"messages": [user("Hi")], "n": 2}, headers=KEYS)
    await cluster.ask("/v1/messages", {"messages": [user("Hi")], "max_tokens": 3}, headers=KEYS)
    assert (await cluster.ask("/v1/models", headers=KEYS)).status == 200


async def test_an_engine_that_only_announced_itself_sees_no_key_of_anybody():
    async with announced_stranger() as (cluster, heads):
        await ask_everything(cluster)
    assert set(SEEN) <= set(heads)
    for head in (head for path in heads for head in heads[path]):
        for word in ("inner", "client", "authorization", "cookie", "api-key"):
            assert word not in head, head
    assert "x-session-id: mine" in heads[CHAT][0]


async def test_a_trusted_one_gets_the_engine_key_and_the_cookies():
    async with announced_stranger(trust_announced=True) as (cluster, heads):
        await ask_everything(cluster)
    assert set(SEEN) <= set(heads)
    for path in SEEN:
        assert "authorization: bearer inner" in heads[path][0], path
    for path in (CHAT, "/v1/messages", "/v1/models"):
        assert "cookie: s=client" in heads[path][0]
        assert "bearer client" not in heads[path][0]


async def test_an_engine_that_was_registered_is_trusted():
    async with announced_stranger() as (cluster, heads):
        (engine,) = cluster.runtime.fleet.engines()
        body = {"url": engine.url, "role": "aggregated"}
        assert (await cluster.ask("/engines", body)).json["source"] == "registered"
        await cluster.chat("Hi", headers=KEYS)
    assert "authorization: bearer inner" in heads[CHAT][0]


async def test_with_trust_and_the_handoff_named_static_p2p_nccl_engines_may_announce_their_kv_address():
    settings = {"discovery": discovery(trust_announced=True), "routing": Routing(handoff="p2p_nccl")}
    async with running_cluster(engine={"handoff": "p2p_nccl", "kv_port": 0}, **settings) as cluster:
        assert (await cluster.ask("/ready")).status == 503
        async with announcing(cluster) as say:
            for engine in cluster.engines:
                kind = "D" if engine is cluster.decode else "P"
                await say(engine.http_address, zmq_address=engine.zmq_address, type=kind, ppd=False)
            known = cluster.runtime.fleet
            await until(lambda: all(known.get(each.http_address).zmq_address for each in cluster.engines))
            assert (await cluster.chat("Hi")).route == "pd"
