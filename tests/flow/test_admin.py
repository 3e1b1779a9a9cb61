"""The operator's endpoints, and those that any live engine answers."""

import asyncio
import json

import pytest
from tests.support.cluster import CHAT, LIMIT_S, assistant, running_cluster, running_proxy, until, user

from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig


async def engines_of(cluster):
    return {each["id"]: each for each in (await cluster.ask("/engines")).json["engines"]}


async def test_the_mode_counts_from_the_next_request_on():
    async with running_cluster() as cluster:
        history = [user("Hi")]
        history += [assistant((await cluster.chat(history)).text), user("Go on.")]
        assert (await cluster.ask("/mode/pd", {})).json == {"mode": "pd"}
        assert (await cluster.ask("/mode")).json == {"mode": "pd"}
        assert (await cluster.chat(history)).decision == "pd;reason=mode_pd;turn=2"
        assert (await cluster.ask("/mode/ppd", {})).json == {"mode": "ppd"}
        assert (await cluster.chat(history)).decision == "direct;reason=known_history;turn=2"
        wrong = await cluster.ask("/mode/fast", {})
        assert (wrong.status, wrong.error["param"]) == (400, "mode")
        assert "pd, ppd" in wrong.error["message"]


async def test_conversations_are_listed_without_their_text_and_cleared():
    async with running_cluster() as cluster:
        assert (await cluster.ask("/conversations")).json == {"count": 0, "conversations": []}
        history = [user("A very secret question")]
        answer = await cluster.chat(history)
        history += [assistant(answer.text), user("Go on.")]
        second = await cluster.chat(history)
        await cluster.chat("Another conversation")
        listed = (await cluster.ask("/conversations")).json
        assert listed["count"] == 2
        usage = second.json["usage"]
        mine = next(each for each in listed["conversations"] if each["turns"] == 2)
        assert set(mine) == {"turns", "home", "tokens", "age_s"}
        assert mine["home"] == cluster.decode.http_address
        assert mine["tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert 0 <= mine["age_s"] < LIMIT_S
        assert "secret" not in json.dumps(listed)
        assert answer.text[:12] not in json.dumps(listed)
        assert len((await cluster.ask("/conversations?limit=1")).json["conversations"]) == 1
        assert (await cluster.ask("/conversations/clear", {})).json == {"cleared": 2}
        assert (await cluster.ask("/conversations")).json["count"] == 0
        assert (await cluster.chat(history)).reason == "history_unknown"


async def test_engines_are_listed_with_state_and_load():
    async with running_cluster(aggregated=1) as cluster:
        cluster.decode.faults.add(Fault(kind="stall_after", chunks=1))
        asking = cluster.tasks.spawn(_stream(cluster))
        await until(lambda: cluster.decode.core.slots.running)
        listed = await engines_of(cluster)
        assert set(listed) == {engine.http_address for engine in cluster.engines}
        decode = listed[cluster.decode.http_address]
        assert set(decode) >= {"id", "url", "role", "handoff", "state", "inflight_requests", "inflight_tokens"}
        assert (decode["url"], decode["role"], decode["handoff"]) == (cluster.decode.url, "decode", "nixl")
        assert (decode["state"], decode["inflight_requests"]) == ("up", 1)
        assert decode["inflight_tokens"] > 0
        assert listed[cluster.aggregated[0].http_address]["inflight_requests"] == 0
        asking.cancel()
        await until(lambda: not any(cluster.runtime.load.requests.values()))


async def _stream(cluster):
    await cluster.chat("Hi", stream=True)


async def test_registered_engines_take_requests_at_once_and_leave_when_they_fall_silent():
    async with (
        running_proxy() as cluster,
        running_engine(EngineConfig(role="prefill")) as prefill,
        running_engine(EngineConfig(role="decode")) as decode,
    ):
        assert (await cluster.ask("/ready")).status == 503
        record = (await cluster.ask("/engines", {"url": prefill.url, "role": "prefill"})).json
        assert record.items() >= {"id": prefill.http_address, "role": "prefill", "state": "up"}.items()
        await cluster.ask("/engines", {"url": decode.url, "role": "decode", "ttl_s": 0.3})
        ready = await cluster.ask("/ready")
        assert (ready.status, ready.json) == (200, {"ready": True, "routes": ["pd"]})
        assert (await cluster.chat("Hi")).route == "pd"
        started_at = asyncio.get_running_loop().time()
        await cluster.ask("/engines", {"url": decode.url, "role": "decode", "ttl_s": 0.3})  # a heartbeat
        await until(lambda: cluster.state_of(decode) == "down")
        assert asyncio.get_running_loop().time() - started_at >= 0.3
        assert cluster.state_of(prefill) == "up"
        assert (await cluster.ask("/ready")).status == 503
        for _ in range(2):
            await cluster.ask("/engines", {"url": decode.url, "role": "decode", "ttl_s": 60})
        assert cluster.state_of(decode) == "up"


async def test_a_registered_engine_that_does_not_answer_is_down():
    async with running_proxy() as cluster, running_engine(EngineConfig(role="decode")) as engine:
        engine.kill()
        record = (await cluster.ask("/engines", {"url": engine.url, "role": "decode"})).json
        assert record["state"] == "down"


WRONG_REGISTRATIONS = (
    (b"{", "send {"),
    (b"{}", "url"),
    (b'{"url": "http://x", "role": "boss"}', "role"),
    (b'{"url": "x", "role": "decode"}', "url"),
    (b'{"url": "http://x", "role": "decode", "ttl_s": 0}', "ttl_s"),
    (b'{"url": "http://x", "role": "decode", "handoff": "pigeon"}', "handoff"),
    (b'{"url": "http://x", "role": "decode", "zmq_address": "x"}', "zmq_address"),
    (b'{"url": "http://x", "role": "decode", "colour": 1}', "colour"),
)


async def test_a_wrong_registration_is_refused_naming_the_field():
    async with running_proxy() as cluster:
        for body, words in WRONG_REGISTRATIONS:
            reply = await cluster.ask("/engines", body, method="POST")
            assert reply.status == 400, body
            assert words in reply.error["message"]
        assert await engines_of(cluster) == {}


async def test_a_draining_engine_finishes_its_streams_and_gets_nothing_new():
    slow = {"timing": TimingConfig(decode_ms_per_token=20)}
    async with running_cluster(decode=2, decode_engine=slow) as cluster:
        streaming = cluster.tasks.spawn(_finish(cluster))
        await until(lambda: any(engine.counts.transfers for engine in cluster.decodes))
        busy = next(engine for engine in cluster.decodes if engine.counts.transfers)
        idle = next(engine for engine in cluster.decodes if engine is not busy)
        record = (await cluster.ask(f"/engines/{busy.http_address}/drain", {})).json
        assert (record["state"], record["inflight_requests"]) == ("draining", 1)
        for number in range(3):
            assert (await cluster.chat(f"Hi {number}", max_tokens=1)).status == 200
        assert len(busy.requests) == 1
        assert len(idle.requests) == 3
        await streaming
        assert busy.counts.finished == 1
        listed = await engines_of(cluster)
        assert (listed[busy.http_address]["state"], listed[busy.http_address]["inflight_requests"]) == ("draining", 0)


async def _finish(cluster):
    reply = await cluster.chat("Hi", stream=True, max_tokens=30)
    assert reply.payloads[-1] == "[DONE]"


async def test_a_removed_engine_is_gone_and_unknown_ids_are_404():
    async with running_cluster() as cluster:
        address = cluster.decode.http_address
        assert (await cluster.ask(f"/engines/{address}", method="DELETE")).json["id"] == address
        assert address not in await engines_of(cluster)
        assert (await cluster.chat("Hi")).error["reason"] == "no_decode_engine"
        for method, path in (("DELETE", f"/engines/{address}"), ("POST", "/engines/nobody:1/drain")):
            reply = await cluster.ask(path, method=method)
            assert (reply.status, reply.headers["content-type"]) == (404, "application/json")
            assert cluster.prefill.http_address in reply.error["message"]


async def test_ready_says_which_routes_there_are():
    for roles, routes in (
        ({}, ["pd"]), ({"aggregated": 1}, ["pd", "aggregated"]), ({"prefill": 0}, []), ({"decode": 0}, []),
        ({"prefill": 0, "decode": 0, "aggregated": 1}, ["aggregated"]),
    ):  # fmt: skip
        async with running_cluster(**roles) as cluster:
            reply = await cluster.ask("/ready")
            assert (reply.status, reply.json["routes"]) == (200 if routes else 503, routes)
            assert (await cluster.ask("/health")).json == {"status": "ok"}


PASSED = (
    ("/v1/models", None), ("/version", None), ("/v1/embeddings", {"input": ["a", "b"]}),
    ("/tokenize", {"prompt": "Hi"}), ("/detokenize", {"tokens": [1500, 1501]}),
)  # fmt: skip


async def test_other_endpoints_pass_through_as_they_are_and_fail_over():
    async with running_cluster(decode=2) as cluster:
        for round_number in range(2):
            for path, body in PASSED:
                reply = await cluster.ask(path, body)
                method = "GET" if body is None else "POST"
                async with cluster.http.request(method, cluster.decodes[1].url + path, json=body) as answer:
                    expected = await answer.json()
                assert reply.status == 200, (path, round_number)
                assert {**reply.json, "created": 0, "data": 0} == {**expected, "created": 0, "data": 0}
            cluster.decodes[0].kill()
        wrong = await cluster.ask("/tokenize", {"prompt": 7})
        assert (wrong.status, wrong.error["param"]) == (400, "body.prompt")
        cluster.decodes[1].kill()
        assert (await cluster.ask("/v1/models")).status == 200  # the prefill engine
        cluster.prefill.kill()
        reply = await cluster.ask("/v1/models")
        assert reply.status in (502, 503)
        assert reply.error["reason"] == "engine_unreachable"


async def test_pass_through_without_any_engine_is_unavailable():
    async with running_proxy() as cluster:
        reply = await cluster.ask("/v1/models")
        assert reply.status == 503
        assert "retry-after" in reply.headers


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_other_generating_endpoints_go_to_one_whole_engine(path):
    body = {"input": "Hi", "messages": [user("Hi")], "max_tokens": 8}
    for aggregated, route in ((1, "aggregated"), (0, "direct")):
        async with running_cluster(aggregated=aggregated) as cluster:
            reply = await cluster.ask(path, body)
            assert reply.decision == f"{route};reason=endpoint_not_split;turn=1"
            assert reply.status == 200
            assert reply.json["usage"]["output_tokens"] > 0
            answering = cluster.aggregated[0] if aggregated else cluster.decode
            assert [each.path for each in answering.requests] == [path]
            assert cluster.prefill.requests == []


async def test_unknown_paths_are_404_in_json():
    async with running_cluster() as cluster:
        for path in ("/", "/nowhere", "/v1/chat", "/v1/audio/speech", "/sim/state", "/metrics/x"):
            for body in (None, {}):
                reply = await cluster.ask(path, body)
                assert (reply.status, reply.headers["content-type"]) == (404, "application/json"), path
                assert reply.error["message"]
        wrong_method = await cluster.ask("/health", {})
        assert (wrong_method.status, wrong_method.headers["content-type"]) == (405, "application/json")


async def test_the_path_of_a_generation_request_is_exact():
    async with running_cluster() as cluster:
        assert (await cluster.ask(CHAT + "/", {})).status == 404
        assert (await cluster.ask(CHAT + "?a=1", {"messages": [user("Hi")], "max_tokens": 1})).status == 200
