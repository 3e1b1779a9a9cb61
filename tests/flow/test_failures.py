"""Engines that fail before the client got a byte: the right status, another engine where one is left, no KV twice."""

import asyncio

import pytest
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, until

from ppd_proxy.config.sections import Limits
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

NO_RETRY = Limits(retries=0)
FORMATS = pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])


def until_hit(faulty):
    """Numbers for requests until one of them met the faulty engine: ties between idle engines depend on their ports."""
    for number in range(100):
        yield number
        if faulty.faults.hits():
            return
    raise AssertionError("a hundred requests and none came to the faulty engine")


def is_engine_request_id_fresh(engines):
    ids = [received.headers["x-request-id"] for engine in engines for received in engine.requests]
    return len(ids) == len(set(ids))


# The prefill engine


@FORMATS
@pytest.mark.parametrize("fault", [Fault(kind="status"), Fault(kind="status", status=503), Fault(kind="drop")])
async def test_a_failed_prefill_leg_is_tried_once_more_elsewhere(fault, stream):
    async with running_cluster(prefill=2) as cluster:
        first = cluster.prefills[0]
        first.faults.add(fault)
        for number in until_hit(first):
            reply = await cluster.chat(f"Hi {number}", stream=stream)
            assert reply.status == 200
            assert reply.route == "pd"
            assert reply.reason in ("first_turn", "prefill_failed")
        assert reply.reason == "prefill_failed"
        assert len(cluster.prefills[1].requests) == number + 1
        assert is_engine_request_id_fresh([first, cluster.prefills[1]])
        assert cluster.decode.counts.mismatched_handoffs == 0
        await cluster.becomes_idle()


@FORMATS
async def test_a_prefill_engine_that_goes_on_failing_gives_its_own_status_and_body(stream):
    async with running_cluster() as cluster:
        body = {"error": {"message": "out of luck", "type": "InternalServerError", "param": None, "code": 500}}
        cluster.prefill.faults.add(Fault(kind="status", status=500, body=body))
        reply = await cluster.chat("Hi", stream=stream)
        assert (reply.status, reply.json) == (500, body)
        assert cluster.prefill.faults.hits() == 2
        assert cluster.decode.requests == []
        await cluster.becomes_idle()


@FORMATS
async def test_a_prefill_engine_that_drops_connections_is_a_bad_gateway(stream):
    async with running_cluster() as cluster:
        cluster.prefill.faults.add(Fault(kind="drop"))
        reply = await cluster.chat("Hi", stream=stream)
        assert (reply.status, reply.error["reason"]) == (502, "engine_error")
        assert reply.headers["content-type"] == "application/json"
        await cluster.becomes_idle()


@FORMATS
async def test_a_hanging_prefill_engine_is_a_gateway_timeout_and_its_request_is_aborted(stream):
    async with running_cluster(limits=Limits(prefill_timeout_s=0.1)) as cluster:
        cluster.prefill.faults.add(Fault(kind="hang"))
        reply = await cluster.chat("Hi", stream=stream)
        assert (reply.status, reply.error["reason"]) == (504, "engine_timeout")
        await until(lambda: cluster.prefill.counts.aborts == 1)
        await cluster.becomes_idle()


async def test_a_refusing_prefill_engine_is_passed_over_without_costing_a_request():
    async with running_cluster(prefill=2) as cluster:
        cluster.prefills[0].kill()
        for number in range(6):
            reply = await cluster.chat(f"Hi {number}")
            assert (reply.status, reply.route) == (200, "pd")
        assert len(cluster.prefills[1].requests) == 6


async def test_a_prefill_engine_that_refuses_several_legs_is_taken_out():
    async with running_cluster(prefill=2) as cluster:
        dead = cluster.prefills[0]
        dead.kill()
        for number in range(30):
            assert (await cluster.chat(f"Hi {number}")).status == 200
            if cluster.state_of(dead) == "down":
                break
        assert cluster.state_of(dead) == "down"


async def test_without_a_reachable_prefill_engine_an_aggregated_one_answers_or_nobody():
    async with running_cluster(aggregated=1) as cluster:
        cluster.prefill.kill()
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.route) == (200, "aggregated")
    async with running_cluster() as cluster:
        cluster.prefill.kill()
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.error["reason"]) == (503, "engine_unreachable")
        assert "retry-after" in reply.headers
        await cluster.becomes_idle()


@FORMATS
async def test_without_a_live_prefill_engine_the_reason_says_so(stream):
    for aggregated in (1, 0):
        async with running_cluster(prefill=0, aggregated=aggregated) as cluster:
            reply = await cluster.chat("Hi", stream=stream)
            assert reply.reason == "no_prefill_engine"
            if aggregated:
                assert (reply.status, reply.route) == (200, "aggregated")
            else:
                assert (reply.status, reply.error["reason"], reply.route) == (503, "no_prefill_engine", "none")
                assert int(reply.headers["retry-after"]) > 0


async def test_without_any_engine_the_reason_says_so():
    async with running_proxy() as cluster:
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.route) == (503, "none")
        assert "retry-after" in reply.headers
    async with running_cluster(decode=0) as cluster:
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.error["reason"]) == (503, "no_decode_engine")


async def test_a_prefill_answer_without_parameters_lets_the_decode_engine_compute_the_prompt():
    """vLLM answers null where a prompt is too short to transfer."""
    async with running_cluster(prefill_engine={"handoff": "none"}) as cluster:
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.route) == (200, "pd")
        assert cluster.decode.counts.transfers == 0


@FORMATS
async def test_a_client_mistake_that_the_prefill_engine_finds_comes_back_verbatim(stream):
    async with running_cluster() as cluster:
        for fields in ({"top_p": 7}, {"model": "nobody"}, {"temperature": "hot"}):
            reply = await cluster.chat("Hi", stream=stream, **fields)
            direct = await cluster.http.post(
                cluster.decode.url + CHAT, json={"messages": [{"role": "user", "content": "Hi"}], **fields}
            )
            expected = await direct.json()
            assert (reply.status, reply.json) == (direct.status, expected)
            assert reply.status in (400, 404, 422)
            assert reply.decision == "pd;reason=first_turn;turn=1"
        assert cluster.decode.counts.transfers == 0
        assert cluster.prefill.counts.requests[CHAT] == 3


# The decode engine


@FORMATS
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(kind="status", status=500), id="500"),
        pytest.param(Fault(kind="status", status=503), id="503"),
        pytest.param(Fault(kind="drop"), id="drop"),
        pytest.param(Fault(kind="error_after", chunks=0), id="error after the role"),
        pytest.param(Fault(kind="die_after", chunks=0), id="death after the role"),
        pytest.param(Fault(kind="truncate_after", chunks=0), id="end after the role"),
    ],
)
async def test_a_decode_engine_that_fails_before_content_is_replaced_and_its_kv_not_used_again(fault, stream):
    async with running_cluster(decode=2) as cluster:
        cluster.decodes[0].faults.add(fault)
        for number in until_hit(cluster.decodes[0]):
            reply = await cluster.chat(f"Hi {number}", stream=stream)
            assert reply.status == 200, reply.body
            assert reply.route == "pd"
            assert reply.broken is None
            if stream:
                assert reply.payloads[-1] == "[DONE]"
                assert not any("error" in event for event in reply.events)
        assert reply.reason == "decode_failed"
        assert len(cluster.prefill.requests) == number + 2
        assert cluster.prefill.counts.stale_pulls == 0
        assert is_engine_request_id_fresh([cluster.prefill])
        assert cluster.decodes[1].counts.mismatched_handoffs == 0


@FORMATS
@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        pytest.param(Fault(kind="status", status=500), (500,), id="500"),
        pytest.param(Fault(kind="status", status=503), (503,), id="503"),
        pytest.param(Fault(kind="drop"), (502,), id="drop"),
        pytest.param(Fault(kind="error_after", chunks=0), (500, 502), id="error after the role"),
        pytest.param(Fault(kind="die_after", chunks=0), (502,), id="death after the role"),
        pytest.param(Fault(kind="truncate_after", chunks=0), (502,), id="end after the role"),
    ],
)
async def test_a_decode_engine_that_fails_before_content_is_never_a_200(fault, statuses, stream):
    async with running_cluster(limits=NO_RETRY) as cluster:
        cluster.decode.faults.add(fault)
        reply = await cluster.chat("Hi", stream=stream)
        assert reply.status in statuses
        assert reply.error["message"]
        assert reply.headers["content-type"].startswith("application/json")
        assert cluster.runtime.load.requests.get(cluster.decode.http_address, 0) == 0


async def test_a_failed_kv_load_is_a_status_although_the_engine_said_200():
    async with running_cluster(limits=NO_RETRY, prefill_engine={"kv_lease_s": 0.001}) as cluster:
        cluster.decode.faults.add(Fault(kind="delay", delay_s=0.1))
        reply = await cluster.chat("Hi", stream=True)
        assert cluster.prefill.counts.expired_leases == 1
        assert reply.status == 500
        assert reply.error["type"] == "InternalServerError"


@FORMATS
async def test_a_refusing_decode_engine_leaves_its_kv_to_another_one(stream):
    async with running_cluster(decode=2) as cluster:
        cluster.decodes[0].kill()
        for number in range(6):
            reply = await cluster.chat(f"Hi {number}", stream=stream)
            assert (reply.status, reply.route) == (200, "pd")
        assert len(cluster.prefill.requests) == 6  # nothing was prefilled twice
        assert cluster.decodes[1].counts.transfers == 6
        await cluster.becomes_idle()


@FORMATS
async def test_a_refusing_only_decode_engine_is_unavailable(stream):
    async with running_cluster() as cluster:
        cluster.decode.kill()
        reply = await cluster.chat("Hi", stream=stream)
        assert (reply.status, reply.error["reason"]) == (503, "engine_unreachable")
        assert "retry-after" in reply.headers
        assert not any(cluster.runtime.load.requests.values())
        assert (await cluster.samples())["ppd_kv_stranded_total"] == 1


@FORMATS
async def test_a_direct_turn_whose_home_dies_is_prefilled_for_another_engine(stream):
    async with running_cluster(decode=2) as cluster:
        opener = [{"role": "user", "content": "Hello"}]
        answer = (await cluster.chat(opener)).text
        home = next(engine for engine in cluster.decodes if engine.requests)
        home.kill()
        history = [*opener, {"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
        reply = await cluster.chat(history, stream=stream)
        assert (reply.status, reply.decision) == (200, "pd;reason=decode_failed;turn=2")
        assert (await cluster.chat(history, stream=stream)).reason in ("known_history", "home_gone")


@FORMATS
async def test_a_refusal_of_the_decode_engine_comes_back_verbatim_and_frees_the_prefill_engine(stream):
    async with running_cluster() as cluster:
        body = {"error": {"message": "not like that", "type": "BadRequestError", "param": "stop", "code": 422}}
        cluster.decode.faults.add(Fault(kind="status", status=422, body=body, times=1))
        reply = await cluster.chat("Hi", stream=stream)
        assert (reply.status, reply.json) == (422, body)
        await cluster.becomes_idle()
        assert cluster.prefill.counts.expired_leases == 0
        assert cluster.prefill.counts.requests[CHAT] == 1


@FORMATS
async def test_a_queue_longer_than_the_limit_is_a_gateway_timeout_and_frees_the_prefill_engine(stream):
    busy = {"timing": TimingConfig(decode_ms_per_token=600_000, slots=1)}
    async with running_cluster(decode_engine=busy, limits=Limits(first_token_timeout_s=0.2)) as cluster:
        blocker = cluster.tasks.spawn(_ask(cluster.http, cluster.decode))
        await until(lambda: cluster.decode.core.slots.running == 1)
        reply = await cluster.chat("Hi", stream=stream)
        assert (reply.status, reply.error["reason"]) == (504, "engine_timeout")
        await cluster.becomes_idle()
        assert cluster.prefill.counts.expired_leases == 0
        blocker.cancel()


async def _ask(http, engine):
    async with http.post(engine.url + COMPLETIONS, json={"prompt": "busy", "max_tokens": 5}) as answer:
        await answer.read()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", id="empty"),
        pytest.param(b"this is not HTTP\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", id="half"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_an_answer_that_is_none_is_a_bad_gateway(answer):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" if b"/health" in head else answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, running_proxy() as cluster:
        url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]  # noqa: UP031
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.error["reason"]) == (502, "engine_error")
