"""P2pNccl clusters: discovered over ZMQ, tagged request ids on the inside, nothing of them on the outside."""

import asyncio
import re
from contextlib import asynccontextmanager

import pytest
from tests.support.cluster import (
    CHAT,
    COMPLETIONS,
    Announcer,
    ask_engine,
    assistant,
    running_proxy,
    until,
    user,
    zmq_context,
)

from ppd_connector.wire import parse_tag
from ppd_core.policy.distrust import Distrust
from ppd_proxy.config.sections import Metrics, Routing
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

PERIOD_S, SILENCE_S, FOUND_WITHIN_S, LOST_WITHIN_S = 0.3, 1.0, 4.0, 3.0
"""A tenth of what engines and proxies have: every 3 s, and 10 s."""
BEAT_S = 0.05


def p2p(role, **fields):
    return EngineConfig(role=role, handoff="p2p_nccl", kv_port=0, echoes_request_id=True, **fields)


@asynccontextmanager
async def announced_cluster(*, decode=None, prefill=None, period_s=BEAT_S, **sections):
    """One prefill and one decode engine that announce themselves; gives the cluster once both are up."""
    async with running_proxy(**sections) as cluster:
        await cluster.runtime.listen_for_announcements(0)
        announce = {"announce": f"127.0.0.1:{cluster.runtime.discovery_port}", "announce_interval_s": period_s}
        async with (
            running_engine(p2p("prefill", **announce, **(prefill or {}))) as p,
            running_engine(p2p("decode", **announce, **(decode or {}))) as d,
        ):
            cluster.prefills, cluster.decodes = [p], [d]
            await until(lambda: all(cluster.state_of(engine) == "up" for engine in (p, d)))
            yield cluster


async def five_turns(cluster, **fields):
    history, replies = [], []
    for number in range(5):
        history.append(user(f"Question {number}: what happened then?"))
        replies.append(await cluster.chat(history, **fields))
        assert replies[-1].status == 200, replies[-1].body
        history.append(assistant(replies[-1].text))
    return replies


def check_nothing_leaks(cluster, reply):
    shown = reply.body.decode() + str(reply.headers)
    addresses = [address for engine in cluster.engines for address in (engine.zmq_address, engine.http_address)]
    for secret in (*addresses, "___", "addr_", "kv_transfer_params"):
        assert secret not in shown


async def test_announced_engines_become_a_route_soon_and_are_lost_when_they_fall_silent():
    """With the stock proxy's port and frames."""
    loop = asyncio.get_running_loop()
    async with announced_cluster(period_s=PERIOD_S) as cluster:
        cluster.runtime.fleet._announcement_ttl_s = SILENCE_S
        async with zmq_context() as context, running_engine(p2p("decode")) as late:
            started_at = loop.time()
            beating = cluster.tasks.spawn(
                Announcer(context, cluster.runtime.discovery_port, late).keep_beating(PERIOD_S)
            )
            await until(lambda: cluster.state_of(late) == "up")
            assert loop.time() - started_at < FOUND_WITHIN_S
            assert (await cluster.ask("/ready")).status == 200
            listed = (await cluster.ask("/engines")).json["engines"]
            assert {each["handoff"] for each in listed} == {"p2p_nccl"}
            assert {each["source"] for each in listed} == {"announced"}
            assert {each["zmq_address"] for each in listed} == {each.zmq_address for each in (*cluster.engines, late)}
            beating.cancel()
            silent_at = loop.time()
            await until(lambda: cluster.state_of(late) == "down")
            assert SILENCE_S - PERIOD_S < loop.time() - silent_at < LOST_WITHIN_S
        assert {cluster.state_of(engine) for engine in cluster.engines} == {"up"}


async def test_an_engine_that_fell_silent_is_back_after_two_beats():
    async with running_proxy() as cluster, zmq_context() as context, running_engine(p2p("prefill")) as engine:
        cluster.runtime.fleet._announcement_ttl_s = 0.3  # ten seconds are a constant of the protocol's side
        await cluster.runtime.listen_for_announcements(0)
        announcer = Announcer(context, cluster.runtime.discovery_port, engine)
        await announcer.beat()
        await until(lambda: cluster.state_of(engine) == "up")
        await until(lambda: cluster.state_of(engine) == "down")
        beating = cluster.tasks.spawn(announcer.keep_beating(BEAT_S))
        await until(lambda: cluster.state_of(engine) == "up")
        beating.cancel()
        await until(lambda: cluster.state_of(engine) == "down")


async def test_an_engine_that_announces_itself_before_its_server_runs_is_up_once_it_answers():
    async with running_proxy() as cluster, zmq_context() as context, running_engine(p2p("prefill")) as engine:
        await cluster.runtime.listen_for_announcements(0)
        config = p2p("decode", port=engine.core.port)
        await engine.stop()
        announcer = Announcer(context, cluster.runtime.discovery_port, engine)
        await announcer.beat()
        await until(lambda: cluster.state_of(engine) == "down")
        assert (await cluster.ask("/ready")).status == 503
        async with running_engine(config):
            await cluster.runtime._prober.probe_all()
            await until(lambda: cluster.state_of(engine) == "up")


async def test_a_restarted_engine_that_reuses_its_identity_is_heard_again():
    """The old connection is still there: without ROUTER_HANDOVER the new one would be dropped."""
    async with running_proxy() as cluster, zmq_context() as context, running_engine(p2p("prefill")) as engine:
        await cluster.runtime.listen_for_announcements(0)
        port = cluster.runtime.discovery_port
        old = Announcer(context, port, engine)
        await old.beat()
        await until(lambda: cluster.state_of(engine) == "up")
        assert not cluster.runtime.fleet.get(engine.http_address).is_ppd
        new = Announcer(context, port, engine, ppd=True)
        await new.beat()
        await until(lambda: cluster.runtime.fleet.get(engine.http_address).is_ppd)


async def test_frames_that_are_no_announcement_are_counted_and_do_not_end_the_listening():
    async with running_proxy() as cluster, zmq_context() as context, running_engine(p2p("prefill")) as engine:
        await cluster.runtime.listen_for_announcements(0)
        # One after the other over one connection, so that the good one comes last.
        sender = Announcer(context, cluster.runtime.discovery_port, engine)
        await sender.beat(type="X")
        await sender.beat(zmq_address="nonsense")
        await sender.beat()
        await until(lambda: cluster.state_of(engine) == "up")
        samples = await cluster.samples()
        assert samples['ppd_announcements_rejected_total{reason="unknown_type"}'] == 1
        assert samples['ppd_announcements_rejected_total{reason="bad_field"}'] == 1


@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["json", "sse"])
async def test_without_trust_every_turn_is_prefilled_and_says_why(fields):
    async with announced_cluster() as cluster:
        replies = await five_turns(cluster, **fields)
        assert [reply.decision for reply in replies] == ["pd;reason=first_turn;turn=1"] + [
            f"pd;reason=handoff_not_direct_safe;turn={turn}" for turn in range(2, 6)
        ]
        tags = [parse_tag(received.headers["x-request-id"]) for received in cluster.prefill.requests]
        assert len({tag.key for tag in tags}) == 5
        assert not any(tag.held_tokens for tag in tags)  # stock engines
        assert not cluster.decode.has_died
        assert len(cluster.prefill.held) == 0
        for reply in replies:
            check_nothing_leaks(cluster, reply)


def ours(**sections):
    """A cluster whose engines both have our connector, in mode `pd`."""
    engine = {"is_ppd": True, "timing": TimingConfig(kv_bytes_per_token=1000, transfer_bytes_per_s=50e6)}
    return announced_cluster(prefill=engine, decode=engine, routing=Routing(mode="pd"), **sections)


def tags_of(engine):
    return [parse_tag(received.headers["x-request-id"]) for received in engine.requests]


@pytest.mark.parametrize(
    "fields", [{}, {"stream": True, "stream_options": {"include_usage": True}}], ids=["json", "sse"]
)
async def test_later_turns_move_only_what_their_home_does_not_hold(fields):
    async with ours() as cluster:
        replies = await five_turns(cluster, **fields)
        assert [reply.route for reply in replies] == ["pd"] * 5
        usages = [(reply.events[-1] if reply.is_stream else reply.json)["usage"] for reply in replies]
        held = [usage["prompt_tokens"] + usage["completion_tokens"] - 1 for usage in usages]
        assert [tag.held_tokens for tag in tags_of(cluster.prefill)] == [0, *held[:-1]]
        assert tags_of(cluster.decode) == tags_of(cluster.prefill)
        # Each turn moves its prompt without the whole blocks of 16 tokens that are held.
        moved = sum(usage["prompt_tokens"] for usage in usages) - sum(tokens // 16 * 16 for tokens in held[:-1])
        assert cluster.decode.counts.transferred_tokens == moved
        failures = "vllm:ppd_kv_failures_total{"
        assert failures not in cluster.decode.core.metrics.exposition().decode()  # it held all that was left out
        for reply in replies:
            check_nothing_leaks(cluster, reply)
            assert "ppd_transfer" not in reply.body.decode()


async def test_another_decode_engine_than_the_home_gets_everything():
    async with ours() as cluster:
        announce = f"127.0.0.1:{cluster.runtime.discovery_port}"
        history = [user("Hello")]
        history += [assistant((await cluster.chat(history)).text), user("More")]
        config = p2p("decode", is_ppd=True, announce=announce, announce_interval_s=BEAT_S)
        async with running_engine(config) as other:
            await until(lambda: cluster.state_of(other) == "up")
            await cluster.ask(f"/engines/{cluster.decode.http_address}/drain", {})
            history += [assistant((await cluster.chat(history)).text), user("And more")]
            await cluster.chat(history)
            assert [tag.held_tokens > 0 for tag in tags_of(other)] == [False, True]


async def test_a_home_under_an_older_salt_counts_as_holding_nothing():
    async with ours() as cluster:
        history = [user("Hello")]
        history += [assistant((await cluster.chat(history)).text), user("More")]
        cluster.runtime.control.distrust = Distrust(salts={cluster.decode.http_address: "ppd-1"})
        history += [assistant((await cluster.chat(history)).text), user("And more")]
        await cluster.chat(history)
        assert [tag.held_tokens > 0 for tag in tags_of(cluster.prefill)] == [False, False, True]
        failures = "vllm:ppd_kv_failures_total{"
        assert failures not in cluster.decode.core.metrics.exposition().decode()


async def test_what_failed_at_its_home_is_prefilled_again_and_moved_whole():
    async with ours() as cluster:
        history = [user("Hello")]
        history += [assistant((await cluster.chat(history)).text), user("More")]
        cluster.decode.faults.add(Fault(kind="status", status=500, times=1))
        reply = await cluster.chat(history)
        assert (reply.status, reply.reason) == (200, "decode_failed")
        assert [tag.held_tokens > 0 for tag in tags_of(cluster.prefill)] == [False, True, False]


async def test_a_home_that_evicted_the_conversation_answers_all_the_same():
    async with ours() as cluster, running_engine(EngineConfig(role="aggregated")) as whole:
        history = [user("Hello")]
        history += [assistant((await cluster.chat(history)).text), user("More")]
        cluster.decode.cache.clear()
        reply = await cluster.chat(history)
        body = {"messages": history, "max_tokens": 20, "temperature": 0}
        assert reply.text == (await ask_engine(cluster.http, whole, CHAT, body)).text
        assert 'reason="prefix_not_held"} 1.0' in cluster.decode.core.metrics.exposition().decode()


async def test_transfers_of_our_connector_are_counted_once_by_pair_and_logged(capsys):
    metrics = Metrics(scrape_interval_s=0.1, kv_bytes_per_token=7)
    async with ours(metrics=metrics) as cluster:
        prefill, decode = cluster.prefill, cluster.decode
        # An engine's figures count from its first reading on.
        await until(lambda: all(engine.counts.requests["/metrics"] > 1 for engine in cluster.engines))
        await five_turns(cluster)
        moved = decode.counts.transferred_tokens * 1000
        measured = 'ppd_kv_transfer_bytes_total{source="measured"}'
        samples = await cluster.scraped(lambda read: read.get(measured) == moved)
        assert samples['ppd_kv_transfer_seconds_total{source="measured"}'] == pytest.approx(moved / 50e6)
        rates = {name: value for name, value in samples.items() if name.startswith("ppd_kv_transfer_bandwidth")}
        pair = f'decode="{decode.http_address}",prefill="{prefill.http_address}",source="measured"'
        assert rates == {f"ppd_kv_transfer_bandwidth_bytes_per_second{{{pair}}}": pytest.approx(50e6)}
        assert 'ppd_kv_transfer_bytes_total{source="estimated"}' not in samples
        blocks = {
            what: samples[
                f'ppd_engine_kv_blocks_total{{direction="recv",engine="{decode.http_address}",what="{what}"}}'
            ]
            for what in ("moved", "skipped")
        }
    lines = [dict(re.findall(r"(kv_\w+)=(\S+)", line)) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if line]
    assert len(told) == 5
    assert sum(int(line["kv_bytes"]) for line in told) == moved
    assert sum(float(line["kv_ms"]) for line in told) == pytest.approx(moved / 50e6 * 1000, abs=0.5)
    assert sum(int(line["kv_blocks"]) for line in told) == blocks["moved"]
    assert sum(int(line["kv_skipped"]) for line in told) == blocks["skipped"] > 0


async def test_an_engine_that_announces_ppd_takes_direct_turns_without_the_flag():
    async with announced_cluster(decode={"is_ppd": True}) as cluster:
        replies = await five_turns(cluster)
        assert [reply.route for reply in replies] == ["pd"] + ["direct"] * 4
        assert len(cluster.prefill.requests) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_the_client_gets_its_own_request_id_and_an_opaque_answer_id(stream):
    async with announced_cluster() as cluster:
        for path, body in (
            ("/v1/chat/completions", {"messages": [user("Hi")]}),
            (COMPLETIONS, {"prompt": "Hi"}),
        ):
            body = {**body, "max_tokens": 4, "stream": stream}
            reply = await cluster.ask(path, body, headers={"x-request-id": "mine"})
            assert reply.headers["x-request-id"] == "mine"
            ids = {event["id"] for event in reply.events} if stream else {reply.json["id"]}
            assert len(ids) == 1
            (answer_id,) = ids
            prefix, _, rest = answer_id.partition("-")
            assert prefix in ("chatcmpl", "cmpl")
            assert len(rest.removesuffix("-0")) == 32
            assert all(letter in "0123456789abcdef" for letter in rest.removesuffix("-0"))
            check_nothing_leaks(cluster, reply)
            unnamed = await cluster.ask(path, body)
            assert len(unnamed.headers["x-request-id"]) == 32


async def test_errors_of_engines_name_no_address_either():
    async with announced_cluster() as cluster:
        reply = await cluster.chat("Hi", top_p=7)
        assert reply.status == 400
        check_nothing_leaks(cluster, reply)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        pytest.param("/v1/chat/completions", {"n": 2, "messages": [user("Hi")], "temperature": 1}, id="n"),
        pytest.param(COMPLETIONS, {"prompt": ["a", "b"]}, id="prompts"),
    ],
)
async def test_several_sequences_are_refused_where_nobody_can_take_them(path, fields):
    async with announced_cluster() as cluster:
        reply = await cluster.ask(path, fields)
        assert (reply.status, reply.error["reason"], reply.headers["retry-after"]) == (503, "multi_sequence", "2")
        assert (cluster.prefill.requests, cluster.decode.requests) == ([], [])
        async with running_engine(EngineConfig(role="aggregated")) as whole:
            await cluster.ask("/engines", {"url": whole.url, "role": "aggregated"})
            reply = await cluster.ask(path, fields)
            assert (reply.status, reply.route, reply.reason) == (200, "aggregated", "multi_sequence")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_other_generating_endpoints_are_refused_unless_an_engine_is_safe(path):
    body = {"input": "Hi", "messages": [user("Hi")], "max_tokens": 8, "model": "sim"}
    async with announced_cluster() as cluster:
        reply = await cluster.ask(path, body)
        assert (reply.status, reply.error["reason"]) == (503, "handoff_not_direct_safe")
        assert not cluster.decode.has_died
    async with announced_cluster(decode={"is_ppd": True}) as cluster:
        reply = await cluster.ask(path, body)
        assert (reply.status, reply.route, reply.reason) == (200, "direct", "endpoint_not_split")


async def test_a_client_that_leaves_during_the_prefill_leg_leaves_nothing_at_either_engine():
    async with announced_cluster(prefill={"timing": TimingConfig(prefill_fixed_ms=150)}) as cluster:
        asking = cluster.tasks.spawn(_ask(cluster))
        await until(lambda: cluster.prefill.requests)
        asking.cancel()
        await until(lambda: cluster.prefill.counts.finished == 1)
        await cluster.becomes_idle()
        assert cluster.prefill.counts.aborts == 0
        assert cluster.decode.counts.transfers == 1


async def _ask(cluster):
    await cluster.chat("Tell me something long", stream=True)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_kv_that_was_pushed_to_a_lost_decode_engine_is_prefilled_anew_under_another_tag(stream):
    async with announced_cluster() as cluster:
        announce = f"127.0.0.1:{cluster.runtime.discovery_port}"
        async with running_engine(p2p("decode", announce=announce, announce_interval_s=BEAT_S)) as other:
            await until(lambda: cluster.state_of(other) == "up")
            other.kill()
            for number in range(40):  # ties between idle engines depend on their ports
                reply = await cluster.chat(f"Hi {number}", stream=stream)
                assert (reply.status, reply.route) == (200, "pd")
                check_nothing_leaks(cluster, reply)
            tags = [parse_tag(received.headers["x-request-id"]) for received in cluster.prefill.requests]
            assert len(set(tags)) == len(tags)
            assert [tag for tag in tags if tag.decode == other.zmq_address]
            assert len(cluster.decode.requests) == 40
            assert cluster.state_of(other) == "down"  # several refused legs
