"""Answers that break off after their first byte, clients that leave in every phase, and clients that read slowly."""

import asyncio
import json
import socket

import pytest
from aiohttp import web
from tests.support.cluster import (
    CHAT,
    COMPLETIONS,
    LIMIT_S,
    assistant,
    running_cluster,
    running_proxy,
    scripted_engine,
    until,
    user,
)

from ppd_proxy.config.sections import Limits, Routing
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

FOREVER_MS = 600_000
FORMATS = pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])


# Breaking off


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS], ids=["chat", "raw"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(Fault(kind="error_after", chunks=3, message="lost the KV"), "lost the KV", id="error event"),
        pytest.param(Fault(kind="die_after", chunks=3), "", id="death"),
        pytest.param(Fault(kind="truncate_after", chunks=3), "", id="end without DONE"),
        pytest.param(Fault(kind="stall_after", chunks=3), "", id="silence"),
    ],
)
async def test_a_stream_that_breaks_off_ends_with_an_error_event_and_without_done(fault, words, path):
    async with running_cluster(limits=Limits(idle_timeout_s=0.2)) as cluster:
        cluster.decode.faults.add(fault)
        reply = await cluster.ask(path, {"messages": [user("Hi")], "prompt": "Hi", "stream": True, "max_tokens": 9})
        assert reply.status == 200
        assert reply.broken is None
        assert "[DONE]" not in reply.payloads
        *content, last = reply.events
        assert words in last["error"]["message"]
        assert last["error"]["message"]
        assert all("error" not in event for event in content)
        texts = [choice for event in content for choice in event["choices"]]
        assert len(texts) == 3 + (path == CHAT)
        await cluster.becomes_idle()


async def test_a_broken_answer_is_not_remembered_as_history():
    async with running_cluster() as cluster:
        cluster.decode.faults.add(Fault(kind="die_after", chunks=3, times=1))
        reply = await cluster.chat("Hi", stream=True)
        said = "".join(choice["delta"].get("content", "") for event in reply.events[:-1] for choice in event["choices"])
        after = await cluster.chat([user("Hi"), assistant(said), user("Go on.")])
        assert (after.route, after.reason) == ("pd", "history_unknown")


@FORMATS
async def test_an_answer_is_remembered_before_its_end_reaches_the_client(stream):
    """The next turn may be on its way as soon as the client saw the last byte."""
    async with running_cluster() as cluster:
        history = []
        for number in range(8):
            history.append(user(f"Question {number}"))
            reply = await cluster.chat(history, stream=stream, max_tokens=2)
            assert reply.route == ("pd" if number == 0 else "direct")
            history.append(assistant(reply.text))


async def test_a_json_answer_that_breaks_off_is_asked_for_again():
    async with running_cluster(decode=2) as cluster:
        for engine in cluster.decodes:
            engine.faults.add(Fault(kind="die_after", nth=1))
        reply = await cluster.chat("Hi")
        assert reply.status == 502  # both engines died of it
        assert (await cluster.chat("Hi")).status == 200
    async with running_cluster(limits=Limits(retries=0)) as cluster:
        cluster.decode.faults.add(Fault(kind="truncate_after"))
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.error["reason"]) == (502, "engine_error")


async def test_a_long_stream_outlives_every_limit_that_is_shorter():
    limits = Limits(prefill_timeout_s=0.3, first_token_timeout_s=0.3, idle_timeout_s=0.3)
    slow = {"timing": TimingConfig(decode_ms_per_token=30)}
    async with running_cluster(decode_engine=slow, limits=limits) as cluster:
        reply = await cluster.chat("Hi", stream=True, max_tokens=24)  # 0.7 s in all
        assert reply.payloads[-1] == "[DONE]"
        assert len(reply.events) >= 24


async def test_events_reach_the_client_when_the_engine_sends_them():
    async with running_cluster() as cluster, asyncio.timeout(LIMIT_S):
        cluster.decode.faults.add(Fault(kind="stall_after", chunks=1))
        body = {"messages": [user("Hi")], "stream": True, "max_tokens": 3}
        async with cluster.http.post(cluster.url + CHAT, json=body) as answer:
            role = await answer.content.readuntil(b"\n\n")
            first = await answer.content.readuntil(b"\n\n")
            assert json.loads(role[6:])["choices"][0]["delta"]["role"] == "assistant"
            assert json.loads(first[6:])["choices"][0]["delta"]["content"]


async def test_a_started_proxy_takes_connections_at_once():
    async with running_proxy() as cluster:
        host, port = cluster.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT_S):
            pass


async def test_opaque_streams_pass_as_they_are():
    async def answer(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"event: response.created\ndata: {}\n\n")
        await response.write(b"event: response.completed\ndata: {}\n\n")
        return response

    async with scripted_engine(answer, "/v1/responses") as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        reply = await cluster.ask("/v1/responses", {"input": "Hi", "stream": True})
        assert (reply.status, reply.route, reply.reason) == (200, "aggregated", "endpoint_not_split")
        assert reply.body == b"event: response.created\ndata: {}\n\nevent: response.completed\ndata: {}\n\n"


async def test_stripped_reasoning_is_still_a_known_history():
    """Clients send the answer back without its reasoning."""

    async def answer(request):
        said = {"role": "assistant", "content": "The mill.", "reasoning": "They ask for a place."}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice]})

    async with scripted_engine(answer) as url, running_proxy(routing=Routing(handoff="none")) as cluster:
        for role, engine_url in (("decode", url), ("prefill", url.replace("127.0.0.1", "localhost"))):
            await cluster.ask("/engines", {"url": engine_url, "role": role})
        first = await cluster.chat("Where?")
        assert (first.route, first.text) == ("pd", "The mill.")
        for said in (assistant("The mill."), {**assistant("The mill."), "reasoning": "They ask for a place."}):
            reply = await cluster.chat([user("Where?"), said, user("Which?")])
            assert reply.decision == "direct;reason=known_history;turn=2"
        other = {**assistant("The mill."), "reasoning": "Something else."}
        assert (await cluster.chat([user("Where?"), other, user("Which?")])).route == "pd"


# Leaving


@FORMATS
async def test_a_client_that_leaves_during_the_prefill_leg_aborts_it(stream):
    slow = {"timing": TimingConfig(prefill_fixed_ms=FOREVER_MS)}
    async with running_cluster(prefill_engine=slow) as cluster:
        asking = cluster.tasks.spawn(_chat(cluster, stream))
        await until(lambda: cluster.prefill.core.slots.running == 1)
        asking.cancel()
        await until(lambda: cluster.prefill.counts.aborts == 1)
        await cluster.becomes_idle()
        assert cluster.decode.requests == []


@FORMATS
async def test_a_client_that_leaves_while_the_decode_engine_queues_it_frees_the_prefill_engine(stream):
    busy = {"timing": TimingConfig(decode_ms_per_token=FOREVER_MS, slots=1)}
    async with running_cluster(decode_engine=busy, limits=Limits(release_grace_s=0.1)) as cluster:
        blocker = cluster.tasks.spawn(_block(cluster))
        await until(lambda: cluster.decode.core.slots.running == 1)
        asking = cluster.tasks.spawn(_chat(cluster, stream))
        await until(lambda: cluster.decode.core.slots.waiting == 1)
        assert len(cluster.prefill.held) == 1
        asking.cancel()
        await cluster.becomes_idle()
        await until(lambda: cluster.decode.counts.released == 1)  # counted when the prefill engine has answered
        assert cluster.prefill.counts.expired_leases == 0
        blocker.cancel()


@FORMATS
async def test_a_client_that_leaves_before_the_decode_engine_looked_at_it_frees_the_prefill_engine(stream):
    async with running_cluster() as cluster:
        cluster.decode.faults.add(Fault(kind="delay", delay_s=0.2))
        asking = cluster.tasks.spawn(_chat(cluster, stream))
        await until(lambda: cluster.decode.counts.requests[CHAT] == 1)
        asking.cancel()
        await until(lambda: cluster.decode.counts.transfers == 1)
        await cluster.becomes_idle()
        assert cluster.prefill.counts.expired_leases == 0
        assert (await cluster.samples())["ppd_kv_released_total"] == 1
        assert (await cluster.samples()).get("ppd_kv_stranded_total", 0) == 0


@FORMATS
async def test_a_client_that_leaves_during_the_answer_aborts_it(stream):
    slow = {"timing": TimingConfig(decode_ms_per_token=20)}
    async with running_cluster(decode_engine=slow, limits=Limits(release_grace_s=0.1)) as cluster:
        asking = cluster.tasks.spawn(_chat(cluster, stream, max_tokens=4000))
        await until(lambda: cluster.decode.counts.transfers == 1)
        asking.cancel()
        await until(lambda: cluster.decode.counts.aborts == 1)
        await cluster.becomes_idle()


@FORMATS
async def test_a_client_that_leaves_during_a_direct_turn_aborts_it(stream):
    slow = {"timing": TimingConfig(decode_ms_per_token=20)}
    async with running_cluster(decode_engine=slow) as cluster:
        answer = (await cluster.chat("Hi", max_tokens=1)).text
        history = [user("Hi"), assistant(answer), user("Go on.")]
        asking = cluster.tasks.spawn(_chat(cluster, stream, messages=history, max_tokens=4000))
        await until(lambda: cluster.decode.core.slots.running == 1)
        asking.cancel()
        await until(lambda: cluster.decode.counts.aborts == 1)
        await cluster.becomes_idle()
        assert len(cluster.prefill.requests) == 1


async def test_a_client_that_leaves_before_its_body_is_complete_costs_nothing():
    async with running_cluster() as cluster:
        host, port = cluster.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await cluster.chat("Hi")).status == 200
        await cluster.becomes_idle()
        assert len(cluster.prefill.requests) == 1


async def test_requests_of_clients_that_left_are_counted_as_such():
    slow = {"timing": TimingConfig(prefill_fixed_ms=FOREVER_MS)}
    async with running_cluster(prefill_engine=slow) as cluster:
        asking = cluster.tasks.spawn(_chat(cluster, stream=True))
        await until(lambda: cluster.prefill.core.slots.running == 1)
        assert (await cluster.samples())[f'ppd_inflight{{engine="{cluster.prefill.http_address}"}}'] == 1
        asking.cancel()
        await cluster.becomes_idle()
        samples = await cluster.samples()
        assert samples['ppd_requests_total{route="pd",status="499"}'] == 1
        assert samples[f'ppd_inflight{{engine="{cluster.prefill.http_address}"}}'] == 0


async def test_a_connection_serves_the_next_request_after_one_that_failed():
    """What one request left on the connection must not reach the next one."""
    async with running_cluster(limits=Limits(retries=0)) as cluster:
        for number in range(4):
            cluster.decode.faults.add(Fault(kind="error_after", chunks=number % 2, times=1))
            await cluster.chat(f"Hi {number}", stream=True)
            cluster.decode.faults.clear()
            reply = await cluster.chat(f"Ho {number}", stream=True)
            assert (reply.status, reply.payloads[-1]) == (200, "[DONE]")
        await until(lambda: not any(cluster.runtime.load.requests.values()))


async def _chat(cluster, stream, *, messages="Hi", **fields):
    await cluster.chat(messages, stream=stream, **fields)


async def _block(cluster):
    body = {"prompt": "busy", "max_tokens": 5}
    async with cluster.http.post(cluster.decode.url + COMPLETIONS, json=body) as answer:
        await answer.read()


# Reading slowly

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 65_536)
EVENTS = 500


class Flood:
    """An engine that streams about 33 MB as fast as it is read."""

    def __init__(self):
        self.sent = 0
        self.blocked = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for _ in range(EVENTS):
                writing = asyncio.get_running_loop().create_task(response.write(EVENT))
                done, _ = await asyncio.wait({writing}, timeout=0.5)
                if not done:
                    self.blocked.set()
                await writing
                self.sent += 1
            await response.write(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        return response


async def connect_without_reading(cluster):
    """A client that asks for a stream and does not read; gives its socket."""
    host, port = cluster.url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    body = b'{"messages": [{"role": "user", "content": "Hi"}], "stream": true}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    await loop.sock_sendall(client, head + body)
    return client


async def test_a_client_that_reads_slowly_slows_the_engine_down_and_gets_everything():
    flood, loop = Flood(), asyncio.get_running_loop()
    async with scripted_engine(flood) as url, running_proxy() as cluster, asyncio.timeout(LIMIT_S):
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        with await connect_without_reading(cluster) as client:
            await flood.blocked.wait()
            assert flood.sent * len(EVENT) < 20_000_000  # the kernel's socket buffers and a little more
            received, tail = 0, b""
            while part := await loop.sock_recv(client, 1 << 20):
                received += len(part)
                tail = (tail + part)[-100:]
        assert received > EVENTS * len(EVENT)
        assert b"data: [DONE]\n\n" in tail


async def test_a_client_that_stops_reading_is_given_up_after_the_idle_limit():
    flood = Flood()
    limits = Limits(idle_timeout_s=0.4)
    async with scripted_engine(flood) as url, running_proxy(limits=limits) as cluster, asyncio.timeout(LIMIT_S):
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        with await connect_without_reading(cluster):
            await flood.gone.wait()
            await until(lambda: not any(cluster.runtime.load.requests.values()))
