"""Bodies that would stop the proxy for everybody, and what all requests together may hold in memory."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, scripted_engine, until

from ppd_proxy.config.sections import Engines, Server

SMALL = Server(max_json_depth=20, max_json_values=100_000)


def chat_with(content: bytes) -> bytes:
    return b'{"messages":[{"role":"user","content":%b}]}' % content


def quoted(text: str) -> bytes:
    return json.dumps(text).encode()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/responses", "/v1/messages", "/tokenize", "/engines"])
@pytest.mark.parametrize(
    ("content", "what", "flag"),
    [
        (b"[" + b"[]," * 30_000 + b"[]]", "values", "--max-json-values"),
        (b"[" * 21 + b"]" * 21 + b" " * 70_000, "levels of nesting", "--max-json-depth"),
        (quoted('"[' * 30_000) + b"," + b'{"a":1},' * 12_000, "values", "--max-json-values"),
    ],
    ids=["values", "depth", "values behind quotes"],
)
async def test_a_body_of_too_much_structure_is_refused_before_anything_of_it_is_decoded(path, content, what, flag):
    async with running_cluster(server=SMALL) as cluster:
        reply = await cluster.ask(path, chat_with(content))
        assert (reply.status, reply.error["reason"]) == (400, "body_too_complex"), reply.body
        assert what in reply.error["message"]
        assert flag in reply.error["message"]
        assert cluster.prefill.requests == []
        assert cluster.runtime.buffered.held_bytes == 0


async def test_text_that_looks_like_structure_passes():
    async with running_cluster(server=SMALL) as cluster:
        reply = await cluster.chat('[],[],\\"{' * 30_000)
        assert "maximum context length" in reply.error["message"]  # an engine has read it


async def test_bodies_count_as_held_until_their_request_is_over():
    async with running_cluster() as cluster:
        reply = await cluster.chat("x" * 100_000, max_tokens=1)
        assert reply.status == 200
        await cluster.ask("/tokenize", {"prompt": "x" * 100_000})
        await until(lambda: cluster.runtime.buffered.held_bytes == 0)
        assert (await cluster.samples())["ppd_buffered_bytes"] == 0


@asynccontextmanager
async def unfinished(cluster, path: str, body: bytes):
    """A request that says one byte more than it sends."""
    host, port = cluster.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body) + 1}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
async def test_unfinished_bodies_leave_room_for_no_more_than_the_limit(path):
    body = b" " * 300_000
    async with running_cluster(server=Server(max_buffered_bytes=500_000)) as cluster:
        held = cluster.runtime.buffered
        async with unfinished(cluster, path, body):
            await until(lambda: held.held_bytes == len(body))
            async with unfinished(cluster, path, body) as second:  # refused while it comes in
                head = await second.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after:" in head
            assert held.held_bytes == len(body)
            assert (await cluster.chat("Hi", max_tokens=1)).status == 200
            held.hold(300_000)
            reply = await cluster.chat("Hi", max_tokens=1)  # refused before a byte of its body is kept
            assert (reply.status, reply.error["reason"]) == (503, "buffers_full")
            held.free(300_000)
        await until(lambda: held.held_bytes == 0)
        assert (await cluster.chat("Hi", max_tokens=1)).status == 200


def said(text: str):
    """An engine whose every answer is `text`."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

    return answer


@asynccontextmanager
async def proxy_of(text: str, **server):
    async with (
        scripted_engine(said(text)) as url,
        running_proxy(engines=Engines(aggregated=(url,)), server=Server(**server)) as cluster,
    ):
        yield cluster


async def test_an_answer_that_is_too_large_is_cut_off_with_502():
    async with proxy_of("x" * 300_000, max_answer_bytes=200_000) as cluster:
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.error["reason"]) == (502, "engine_error")
        assert "more than 200000 bytes" in reply.error["message"]
        await until(lambda: cluster.runtime.buffered.held_bytes == 0)


async def test_a_large_answer_comes_whole_and_is_remembered():
    text = "x" * 3_000_000
    async with proxy_of(text) as cluster:
        first = await cluster.chat("Hi")
        assert first.text == text
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]
        again = await cluster.chat([*messages, {"role": "user", "content": "And?"}])
        assert "turn=2" in again.decision
        await until(lambda: cluster.runtime.buffered.held_bytes == 0)


async def test_what_clients_do_not_take_counts_as_buffered():
    async with proxy_of("x" * 20_000_000, max_buffered_bytes=5_000_000) as cluster:
        host, port = cluster.url.removeprefix("http://").split(":")
        body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
        buffered = cluster.runtime.buffered
        await until(lambda: buffered.unsent_bytes > 5_000_000)
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.error["reason"]) == (503, "buffers_full")
        writer.transport.abort()
        await until(lambda: buffered.total_bytes == 0)
