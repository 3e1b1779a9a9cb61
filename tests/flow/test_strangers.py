"""An engine that sends more than its answer: the next client must not get it, not even when it comes late."""

import asyncio
import json
import re

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, scripted_engine
from tests.support.scripted import SSE_END, SSE_HEAD, answer, chunk, scripted

from ppd_core.fleet.echoes import MISSES
from ppd_proxy.config.sections import Engines, Limits

HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
FORMATS = pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
ENDPOINTS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/responses", "/v1/messages"])


def said(path, key, text, *, stream):
    """A whole answer with vLLM's ids, as one HTTP message."""
    if path == "/v1/responses":
        whole = {"id": f"resp_{key}", "object": "response", "output": [text], "status": "completed"}
        begun = {"response": {"id": f"resp_{key}"}}
        events = [("response.created", begun), ("response.completed", {"response": whole})]
    elif path == "/v1/messages":
        whole = {"id": f"chatcmpl-{key}", "type": "message", "content": [{"type": "text", "text": text}]}
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        events = [
            ("message_start", {"type": "message_start", "message": {"id": f"chatcmpl-{key}"}}),
            ("content_block_delta", delta),
            ("message_stop", {"type": "message_stop"}),
        ]
    else:
        prefix = "chatcmpl-" if path == CHAT else "cmpl-"
        piece = {"message": {"content": text}, "text": text, "delta": {"content": text}, "finish_reason": "stop"}
        whole = {"id": prefix + key, "choices": [{"index": 0, **piece}]}
        events = [(None, whole)]
    if not stream:
        return answer(200, json.dumps(whole).encode())
    lines = [(f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n" for name, data in events]
    if events[0][0] is None:
        lines.append("data: [DONE]\n\n")
    return SSE_HEAD + b"".join(chunk(line.encode()) for line in lines) + SSE_END


class Engine:
    """Answers with echoed ids; behind `doubled` answers it sends another one when told to."""

    def __init__(self, path, *, stream):
        self._path, self._stream = path, stream
        self.release = asyncio.Event()
        self.asked = 0
        self.hides = False

    def to(self, request, text, key=None):
        found = re.search(rb"x-request-id: (\S+)", request)
        return said(self._path, key or found[1].decode(), text, stream=self._stream)

    async def talk(self, line):
        while True:
            request = await line.request()
            if request.startswith(b"GET"):
                await line.send(HEALTHY)
                continue
            self.asked += 1
            number = self.asked
            if number == 2:  # what was meant for the first client comes once more, into the second one's request
                await line.send(self.to(request, "stranger", key="0" * 32))
            await line.send(self.to(request, f"own {number}"))


def body(path, *, stream):
    asked = {CHAT: {"messages": [{"role": "user", "content": "Hi"}]}, COMPLETIONS: {"prompt": "Hi"}}
    return {**asked.get(path, {"input": "Hi", "messages": [], "max_tokens": 5}), "stream": stream}


@FORMATS
@ENDPOINTS
async def test_a_late_second_answer_reaches_no_client(path, stream):
    engine = Engine(path, stream=stream)
    async with scripted(engine.talk) as scripted_one:
        url = f"http://{scripted_one.origin.authority}"
        async with running_proxy(engines=Engines(aggregated=(url,)), limits=Limits(retries=0)) as cluster:
            first = await cluster.ask(path, body(path, stream=stream))
            assert b"own 1" in first.body
            second = await cluster.ask(path, body(path, stream=stream))
            assert second.status == 502
            assert b"stranger" not in second.body
            assert b"its id is not the one that was sent" in second.body
            third = await cluster.ask(path, body(path, stream=stream))
            assert b"own 3" in third.body
            assert (await cluster.samples())[f'ppd_engine_echoes_ids{{engine="{scripted_one.origin.authority}"}}'] == 1
        assert engine.asked == 3
        assert scripted_one.connections >= 3  # probe, the first two requests, the third on a new one


@FORMATS
async def test_a_strangers_prefill_answer_is_not_handed_on(stream):
    """Its KV would be another request's: the worst answer that looks right."""
    params = {
        "do_remote_prefill": True, "remote_engine_id": "p", "remote_request_id": "r", "remote_block_ids": [[1]],
        "remote_host": "h", "remote_port": 1,
    }  # fmt: skip
    handed = []

    async def prefill(request):
        key = request.headers["x-request-id"]
        key = "0" * 32 if len(asked) == 1 else key
        asked.append(key)
        choice = {"index": 0, "text": "x", "finish_reason": "length"}
        return web.json_response(
            {"id": f"cmpl-{key}", "choices": [choice], "kv_transfer_params": {**params, "remote_request_id": key}}
        )

    async def decode(request):
        sent = await request.json()
        handed.append(sent["kv_transfer_params"]["remote_request_id"])
        whole = said(COMPLETIONS, request.headers["x-request-id"], "fine", stream=False).partition(b"\r\n\r\n")[2]
        if not stream:
            return web.Response(body=whole, content_type="application/json")
        return web.Response(body=b"data: " + whole + b"\n\ndata: [DONE]\n\n", content_type="text/event-stream")

    asked = []
    async with scripted_engine(prefill) as p, scripted_engine(decode) as d:
        async with running_proxy(engines=Engines(prefill=(p,), decode=(d,))) as cluster:
            for number in range(3):
                reply = await cluster.complete(f"Hi {number}", stream=stream)
                assert reply.status == 200
                assert reply.reason == ("prefill_failed" if number == 1 else "first_turn")
    assert asked[1] == "0" * 32
    assert handed == [asked[0], asked[2], asked[3]]


async def test_a_passed_on_request_gets_no_bytes_of_an_idle_connection():
    """What came there is an answer to nobody."""
    answered, sent = asyncio.Event(), asyncio.Event()

    async def talk(line):
        for number in (1, 2):
            request = await line.request()
            if request.startswith(b"GET"):
                await line.send(HEALTHY)
                await line.gone()
                return
            await line.send(answer(200, b'{"count":%d}' % number))
            await answered.wait()
            await line.send(answer(200, b'{"count":"stranger"}'))
            sent.set()

    async with scripted(talk) as engine:
        async with running_proxy(engines=Engines(aggregated=(f"http://{engine.origin.authority}",))) as cluster:
            for _ in range(3):
                answered.clear()
                sent.clear()
                reply = await cluster.ask("/tokenize", {"prompt": "Hi"})
                assert reply.json == {"count": 1}
                answered.set()
                await sent.wait()
        assert engine.connections >= 4


async def test_engines_that_never_echo_ids_are_not_judged_by_them():
    async def other(request):
        return web.json_response({"id": "x", "choices": [{"index": 0, "text": "fine", "finish_reason": "stop"}]})

    async with scripted_engine(other) as url, running_proxy(engines=Engines(aggregated=(url,))) as cluster:
        name = f'ppd_engine_echoes_ids{{engine="{url.removeprefix("http://")}"}}'
        for _ in range(MISSES):
            assert name not in await cluster.samples()
            assert (await cluster.complete("Hi")).text == "fine"
        assert (await cluster.samples())[name] == 0
        assert (await cluster.complete("Hi")).text == "fine"


async def test_both_engines_of_a_pair_are_known_to_echo_after_one_request():
    async with running_cluster() as cluster:
        await cluster.chat("Hi")
        told = await cluster.samples()
        assert [told[f'ppd_engine_echoes_ids{{engine="{each.http_address}"}}'] for each in cluster.engines] == [1, 1]
