"""Distrust in a running proxy: salts on decode legs only, homes that count no more, whom homes blame."""

import pytest
from tests.support.cluster import assistant, running_cluster, user

from ppd_core.policy.distrust import Distrust
from ppd_proxy.config.sections import Routing
from ppd_sim.faults import Fault

LONG = "Tell me about the mill and the river beside it, and about the people who lived there. " * 4


def salts(engine):
    return [received.body.get("cache_salt") for received in engine.requests]


def homes(cluster):
    """Every home that is remembered, each once."""
    seen = set()
    cluster.runtime.conversations.forget_homes(lambda home: bool(seen.add(home)))
    return seen


def filled_by(cluster):
    (home,) = homes(cluster)
    return home.filled_by


async def turn(cluster, history, **fields):
    """Ask, and take the answer into the history."""
    reply = await cluster.chat(history, **fields)
    assert reply.status == 200, reply.body
    history += [assistant(reply.text), user("And then? " + LONG)]
    return reply


def distrusted(cluster):
    """The only pair is."""
    pair = (cluster.prefill.http_address, cluster.decode.http_address)
    return Distrust(pairs=frozenset({pair}), salts={pair[1]: "ppd-1"})


async def test_only_the_decode_leg_gets_its_engines_salt():
    async with running_cluster() as cluster:
        cluster.runtime.control.distrust = Distrust(salts={cluster.decode.http_address: "ppd-1"})
        await cluster.chat("Hello")
        await cluster.chat("Hello", cache_salt="mine")
        await cluster.chat("Hello", stream=True)
        assert salts(cluster.decode) == ["ppd-1", "ppd-1:mine", "ppd-1"]
        assert salts(cluster.prefill) == [None, "mine", None]


async def test_a_release_leg_behind_a_refusal_gets_a_salt_of_its_own():
    """The blocks that it pulls may be others' by then: nothing may find them on the decode engine."""
    async with running_cluster() as cluster:
        cluster.runtime.control.distrust = Distrust(salts={cluster.decode.http_address: "ppd-1"})
        cluster.decode.faults.add(Fault(kind="status", status=400, times=1))
        assert (await cluster.chat("Hello")).status == 400
        await cluster.becomes_idle()
        [salt] = salts(cluster.decode)  # a leg that met a fault is not listed
        assert salt.endswith("-apart")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hello", "max_output_tokens": 5}),
        ("/v1/messages", {"messages": [user("Hello")], "max_tokens": 5}),
    ],
)
async def test_endpoints_that_are_never_split_get_the_salt_in_their_body(path, body):
    async with running_cluster() as cluster:
        cluster.runtime.control.distrust = Distrust(salts={cluster.decode.http_address: "ppd-1"})
        assert (await cluster.ask(path, body)).status == 200
        assert salts(cluster.decode) == ["ppd-1"]


async def test_a_home_under_an_older_salt_is_no_home_and_its_kv_is_not_found():
    async with running_cluster() as cluster:
        history = [user(LONG)]
        assert (await turn(cluster, history)).reason == "first_turn"
        assert (await turn(cluster, history)).reason == "known_history"
        cluster.runtime.control.distrust = Distrust(salts={cluster.decode.http_address: "ppd-1"})
        assert (await turn(cluster, history)).decision == "pd;reason=home_distrusted;turn=3"
        after = await turn(cluster, history)
        assert after.decision == "direct;reason=known_history;turn=4"
        assert after.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
        assert {home.salt for home in homes(cluster)} == {"ppd-1"}


async def test_an_engine_that_computes_alone_finds_nothing_of_the_distrusted_pair():
    async with running_cluster() as cluster:
        history = [user(LONG)]
        await turn(cluster, history)
        cluster.runtime.control.distrust = distrusted(cluster)
        alone = await turn(cluster, history)
        assert alone.decision == "direct;reason=split_distrusted;turn=2"
        assert alone.json["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert filled_by(cluster) == ()
        assert (await turn(cluster, history)).decision == "direct;reason=known_history;turn=3"
        assert len(cluster.prefill.requests) == 1


async def test_a_home_says_which_prefill_engines_filled_it():
    async with running_cluster(prefill=2, routing=Routing(mode="ppd")) as cluster:
        history = [user(LONG)]
        await turn(cluster, history)
        (first,) = (engine for engine in cluster.prefills if engine.requests)
        (second,) = (engine for engine in cluster.prefills if not engine.requests)
        assert filled_by(cluster) == (first.http_address,)
        await turn(cluster, history)
        assert filled_by(cluster) == (first.http_address,)
        cluster.runtime.control.mode = "pd"
        await cluster.ask(f"/engines/{first.http_address}/drain", {})
        await turn(cluster, history)
        await turn(cluster, history)
        assert filled_by(cluster) == (first.http_address, second.http_address)


async def test_a_home_that_another_engine_takes_over_is_filled_anew():
    async with running_cluster(prefill=1, decode=2) as cluster:
        history = [user(LONG)]
        await turn(cluster, history)
        (home,) = (engine for engine in cluster.decodes if engine.requests)
        await cluster.ask(f"/engines/{home.http_address}/drain", {})
        await turn(cluster, history)
        (now,) = homes(cluster)
        assert now.engine_id != home.http_address
        assert now.filled_by == (cluster.prefill.http_address,)


async def test_what_failed_is_not_tried_again_by_a_distrusted_pair():
    async with running_cluster(decode=2) as cluster:
        bad, good = cluster.decodes
        pair = (cluster.prefill.http_address, bad.http_address)
        cluster.runtime.control.distrust = Distrust(pairs=frozenset({pair}), salts={bad.http_address: "ppd-1"})
        good.faults.add(Fault(kind="status", status=500, times=1))
        assert (await cluster.chat("Hello")).decision == "pd;reason=decode_failed;turn=1"
        assert (len(bad.requests), len(good.requests)) == (0, 1)
