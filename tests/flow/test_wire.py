"""HTTP itself: how clients may send, how answers are framed, strange bodies, and an orderly end."""

import asyncio
import gc
import json

import pytest
from aiohttp import ClientError, web
from tests.support import raw_client
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

from ppd_proxy.config.sections import Conversations
from ppd_proxy.request.serving import Serving
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig


async def raw(cluster, data):
    """Everything the proxy says to these bytes until it closes the connection."""
    host, port = cluster.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    async with asyncio.timeout(LIMIT_S):
        said = await reader.read()
    writer.close()
    return said


def request_bytes(body, *headers):
    sent = json.dumps(body).encode()
    lines = (f"POST {CHAT} HTTP/1.1", "host: x", f"content-length: {len(sent)}", *headers, "", "")
    return "\r\n".join(lines).encode() + sent


def whole_chunks(body):
    """The payload of a chunked body; every chunk must be as long as it says."""
    found = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        assert body[length : length + 2] == b"\r\n"
        if length == 0:
            return found, body[2:]
        found += body[:length]
        body = body[length + 2 :]


async def test_requests_sent_ahead_are_answered_in_order_and_apart():
    async with running_cluster() as cluster:
        await cluster.ask("/health")
        bodies = [{"messages": [user(f"Hi {n}")], "stream": n != 1, "max_tokens": 5} for n in range(3)]
        *ahead, last = [request_bytes(body) for body in bodies]
        said = await raw(cluster, b"".join(ahead) + last.replace(b"host: x", b"host: x\r\nconnection: close"))
        head, _, rest = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        first, rest = whole_chunks(rest)
        assert first.endswith(b"data: [DONE]\n\n")
        head, _, rest = rest.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(rest[:length])["object"] == "chat.completion"
        _, _, rest = rest[length:].partition(b"\r\n\r\n")
        third, rest = whole_chunks(rest)
        assert third.endswith(b"data: [DONE]\n\n")
        assert rest == b""


async def test_bodies_may_come_in_chunks_and_after_a_100_continue():
    async def pieces():
        for piece in (b'{"messages": [{"role"', b': "user", "content": "Hi"}], ', b'"max_tokens": 3}'):
            yield piece

    async with running_cluster() as cluster:
        async with cluster.http.post(cluster.url + CHAT, data=pieces()) as answer:
            assert answer.status == 200
        async with cluster.http.post(cluster.url + CHAT, json={"messages": [user("Ho")]}, expect100=True) as answer:
            assert answer.status == 200
        for engine in cluster.engines:
            assert all("content-length" in received.headers for received in engine.requests)
            assert all("transfer-encoding" not in received.headers for received in engine.requests)
            assert all("expect" not in received.headers for received in engine.requests)


async def test_no_header_comes_twice_and_none_of_the_engines_own_comes_at_all():
    async with running_cluster(engine={"echoes_request_id": True}) as cluster:
        for stream in (False, True):
            async with cluster.http.post(
                cluster.url + CHAT, json={"messages": [user("Hi")], "stream": stream}
            ) as answer:
                names = [name.decode().lower() for name, _ in answer.raw_headers]
                assert len(names) == len(set(names))
                assert "server" not in names
                assert {"content-type", "x-ppd-decision", "x-request-id"} <= set(names)
                assert ("content-length" in names) != stream
                await answer.read()


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
async def test_events_that_arrive_byte_by_byte_leave_whole(line_end):
    chunks = [
        {"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"id": "x", "choices": [{"index": 0, "delta": {"content": "Größe 🙂"}}]},
        {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "kv_transfer_params": {"a": 1}},
        {"id": "x", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    payloads = [json.dumps(chunk, ensure_ascii=False).encode() for chunk in chunks]
    stream = b"".join(b"data: " + payload + line_end * 2 for payload in (*payloads, b"[DONE]"))

    async def answer(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for place in range(len(stream)):
            await response.write(stream[place : place + 1])
            if place % 16 == 0:
                await asyncio.sleep(0)
        return response

    async with scripted_engine(answer) as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        reply = await cluster.chat("Hi", stream=True)
        assert reply.payloads[-1] == "[DONE]"
        assert reply.text == "Größe 🙂"
        assert len(reply.events) == 3  # the usage nobody asked for is taken out
        assert b"kv_transfer_params" not in reply.body


STRANGE = [
    rb'{"messages": [{"role": "user", "content": "\ud800"}]}',
    b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    b'{"messages": [{"role": "user", "content": 7}]}',
    b'{"messages": [{"role": "user", "content": null}]}',
    b'{"messages": [{"role": "user", "content": [null]}]}',
    b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}',
    b'{"messages": [{"role": "user", "content": [{"type": ["text"], "text": {}}]}]}',
    b'{"messages": [{"role": "user", "content": {"a": 1}}]}',
    b'{"messages": [{"role": 5, "content": "x"}]}',
    b'{"messages": [{"content": "x"}]}',
    b'{"messages": [{}]}',
    b'{"messages": []}',
    b'{"messages": [{"role": "assistant", "content": "x", "tool_calls": "x"}]}',
    b'{"messages": [{"role": "assistant", "content": "x", "tool_calls": [null]}]}',
    b'{"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"function": 5}]}]}',
    b'{"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"function": {"arguments": 5}}]}]}',
    b'{"messages": [{"role": "assistant", "reasoning": 5, "content": "x"}, {"role": "user", "content": "y"}]}',
    b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"messages": [{"role": "user", "content": "x", "deep": ' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    b'{"messages": [{"role": "user", "content": "x"}], "tools": "\xff"}',
    b'{"messages": [{"role": "user", "content": "x"}], "tools": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"messages": [{"role": "user", "content": "x"}], "vllm_xargs": "\xff"}',
    b'{"messages": [{"role": "user", "content": "x"}], "vllm_xargs": 5}',
    b'{"messages": [{"role": "user", "content": "x"}], "vllm_xargs": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"messages": [{"role": "user", "content": "x"}], "stream_options": 5}',
    b'{"messages": [{"role": "user", "content": "x"}], "stream": true, "stream_options": 5}',
    b'{"messages": [{"role": "user", "content": "x"}], "stream": true, "stream_options": "\xff"}',
    b'{"messages": [{"role": "user", "content": "x"}], "stream": "yes"}',
    b'{"messages": [{"role": "user", "content": "x"}], "n": "2"}',
    b'{"messages": [{"role": "user", "content": "x"}], "n": 0}',
    b'{"messages": [{"role": "user", "content": "x"}], "n": 1.0}',
    b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1e400}',
    b'{"messages": [{"role": "user", "content": "x"}], "seed": 123456789012345678901234567890}',
    b'{"messages": [{"role": "user", "content": "x"}], "seed": 1, "seed": 2}',
    b'{"messages": [{"role": "user", "content": "x"}], "model": {"a": 1}}',
    b'{"messages": [{"role": "user", "content": "x"}], "": 1}',
    b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "x"}]}',
    b'{"messages": [{"role": "user", "content": "x"}]} trailing',
    b'{"messages": [{"role": "user", "content": "x"}], "logprobs": NaN}',
    b'{"prompt": []}', b'{"prompt": ""}', b'{"prompt": [""]}', b'{"prompt": [[]]}', b'{"prompt": [null]}',
    b'{"prompt": [1, "a"]}', b'{"prompt": [true]}', b'{"prompt": [5000000000]}', b'{"prompt": [99999999999999999999]}',
    b'{"prompt": "\xff"}', rb'{"prompt": "\ud800 and more"}', b'{"prompt": "x", "prompt_embeds": "y"}',
    b'{"prompt_embeds": "y"}', b'{"prompt": 5}', b'{"prompt": "x", "echo": 5}', b'{"prompt": "x", "logprobs": "a"}',
    b'{"prompt": "x", "best_of": "many"}', b'{"prompt": [[1500], "a"]}', b'{"prompt": [[1500, null]]}',
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_strange_bodies_get_an_answer_or_a_refusal_and_harm_nobody(stream):
    """What is wrong is the client's fault: never a 5xx, and the proxy and both engines go on."""
    wrong = {}
    async with running_cluster(aggregated=1) as cluster:
        for body in STRANGE:
            path = COMPLETIONS if b'"prompt' in body else CHAT
            sent = body.replace(b"{", b'{"max_tokens": 2, "stream": true, ', 1) if stream else body
            reply = await cluster.ask(path, sent, method="POST")
            if reply.status >= 500 or reply.broken:
                wrong[body[:120]] = (reply.status, reply.body[:200])
        assert wrong == {}
        assert (await cluster.chat("Hi")).status == 200
        await cluster.becomes_idle()


async def test_conversations_are_forgotten_with_age():
    async with running_cluster(conversations=Conversations(conversation_ttl_s=0.3)) as cluster:
        answer = (await cluster.chat("Hi")).text
        await until(lambda: cluster.runtime.conversations.count == 0)
        reply = await cluster.chat([user("Hi"), assistant(answer), user("Go on.")])
        assert (reply.route, reply.reason) == ("pd", "history_unknown")


# The end


async def test_stopping_lets_answers_in_flight_end_and_takes_nothing_new():
    slow = {"timing": TimingConfig(decode_ms_per_token=15)}
    async with running_cluster(decode_engine=slow) as cluster:
        host, port = cluster.url.removeprefix("http://").split(":")
        asking = asyncio.get_running_loop().create_task(cluster.chat("Hi", stream=True, max_tokens=30))
        await until(lambda: cluster.decode.core.slots.running)
        cluster.runtime.ask_to_stop()
        reply = await asking
        assert reply.payloads[-1] == "[DONE]"
        async with asyncio.timeout(LIMIT_S):
            await cluster.runtime.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))


async def test_a_second_request_to_stop_ends_what_is_in_flight():
    async with running_cluster() as cluster:
        cluster.decode.faults.add(Fault(kind="stall_after", chunks=2))
        asking = asyncio.get_running_loop().create_task(cluster.chat("Hi", stream=True))
        await until(lambda: cluster.decode.core.slots.running)
        cluster.runtime.ask_to_stop()
        cluster.runtime.ask_to_stop()
        async with asyncio.timeout(LIMIT_S):
            await cluster.runtime.stop()
        await until(lambda: cluster.decode.counts.aborts == 1)
        done, _ = await asyncio.wait({asking}, timeout=3)
        asking.cancel()
        (reply,) = await asyncio.gather(asking, return_exceptions=True)
        assert done, "the client's connection is still open"
        assert b"the proxy is stopping" in reply.body
        assert b"[DONE]" not in reply.body


async def test_a_kept_connection_holds_nothing_of_its_last_request():
    async with running_cluster() as cluster:
        await cluster.chat("Hello")
        connections = cluster.runtime._server._door.connections
        assert connections
        assert [each._generation for each in connections] == [None] * len(connections)


def _bug(*arguments, **named):
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    "place", ["planner.Situation", "legs.LegRequest", "answering.client_body", "director.named_model"]
)
async def test_a_bug_on_a_generation_endpoint_ends_its_request_and_nothing_else(monkeypatch, place):
    async with running_cluster() as cluster:
        with monkeypatch.context() as patched:
            patched.setattr(f"ppd_proxy.request.{place}", _bug)
            reply = await cluster.chat("Hello")
        if place == "director.named_model":  # behind the answer
            assert reply.status == 200
        else:
            assert (reply.status, reply.error["reason"]) == (500, "internal_error")
        assert cluster.runtime._server._door.requests.count == 0
        assert not cluster.runtime.load.requests
        assert not cluster.runtime.buffered.held_bytes
        assert (await cluster.chat("Hello")).status == 200


async def test_a_bug_in_the_middle_of_a_stream_cuts_it_off(monkeypatch):
    class Buggy(Serving):
        broken = "response_headers"

        def response_headers(self, ongoing, leg):
            return _bug() if self.broken == "response_headers" else super().response_headers(ongoing, leg)

        def complete(self, ongoing, leg):
            return _bug() if self.broken == "complete" else super().complete(ongoing, leg)

    monkeypatch.setattr("ppd_proxy.runtime.runtime.Serving", Buggy)
    async with running_cluster() as cluster:
        reply = await cluster.chat("Hello", stream=True)
        assert (reply.status, reply.error["reason"]) == (500, "internal_error")
        Buggy.broken = "complete"
        try:
            body = (await cluster.chat("Hello", stream=True)).body
        except ClientError:
            body = b""
        assert b"[DONE]" not in body
        Buggy.broken = ""
        assert cluster.runtime._server._door.requests.count == 0
        assert (await cluster.chat("Hello")).status == 200


async def test_requests_leave_no_reference_cycles_behind():
    """The collector is set to run seldom; with cycles it took a tenth of the CPU."""
    async with running_cluster() as cluster:
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for stream in (False, True):
                await cluster.chat("Hello", stream=stream)
                await cluster.chat("Hello", stream=stream)
                await cluster.chat("Hello", stream=stream, n=2)
                await cluster.chat(7, stream=stream)
            gc.collect()
            cyclic = {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("ppd_proxy.")}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert not cyclic


async def test_connections_leave_no_reference_cycles_behind():
    """A proxy whose clients and engines come and go would grow until the collector looks at everything."""
    async with running_cluster() as cluster:
        await cluster.chat("Hello")
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for request_bytes in (raw_client.chat(), raw_client.request()):
                async with raw_client.raw(cluster.url) as client:
                    await client.send(request_bytes)
                    assert (await client.answer()).status == 200
            await until(lambda: len(cluster.runtime._server._door.connections) <= 1)  # the cluster's own client stays
            for connection in tuple(cluster.runtime._pool._open):
                connection.abort()
            await until(lambda: not cluster.runtime._pool._open)
            gc.collect()
            cyclic = {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("ppd_proxy.")}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert not cyclic
