"""How long a client may take to send and to read, on raw bytes against the port; knows no server."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, running_cluster, running_proxy, scripted_engine, until, user
from tests.support.raw_client import Raw, chat, raw, request

from ppd_proxy.config.sections import Server
from ppd_sim.faults import Fault

SHORT_S = 0.1
BODY = json.dumps({"messages": [user("Hi")], "max_tokens": 3}).encode()
HEAD = request("POST", CHAT, ["Content-Type: application/json", f"Content-Length: {len(BODY)}"])
ANSWER_BYTES = 20 << 20


async def drip(client, piece):
    """Send `piece` again and again, faster than any limit, until the proxy answers."""
    try:
        while True:
            await client.send(piece)
            await asyncio.sleep(SHORT_S / 10)
    except ConnectionError:
        pass


@asynccontextmanager
async def unreading(url):
    """A connection that takes what the kernel's buffers hold and no more until it is asked to."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=4096)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


async def cut_off(cluster):
    await cluster.scraped(lambda samples: samples["ppd_clients_stalled_total"] == 1)


@asynccontextmanager
async def generous_proxy(**server):
    """A proxy in front of an engine that answers 20 MB."""
    asked = []

    async def answer(wanted):
        asked.append(await wanted.json())
        message = {"role": "assistant", "content": "x" * ANSWER_BYTES}
        return web.json_response({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async with scripted_engine(answer) as url, running_proxy(server=Server(**server)) as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        yield cluster, asked


# Sending


async def test_a_connection_that_never_sends_a_request_is_closed_without_a_word():
    async with running_proxy(server=Server(keep_alive_s=SHORT_S, head_timeout_s=SHORT_S)) as cluster:
        for first in (b"", b"\r\n"):
            async with raw(cluster.url) as client:
                await client.send(first)
                assert await client.rest() == b""


async def test_a_kept_connection_is_closed_when_it_is_idle_and_not_while_it_is_used():
    async with running_proxy(server=Server(keep_alive_s=4 * SHORT_S)) as cluster, raw(cluster.url) as client:
        for _ in range(5):
            await client.send(request())
            assert (await client.answer()).status == 200
            await asyncio.sleep(SHORT_S)
        assert await client.rest() == b""


@pytest.mark.parametrize("sent", [b"G", HEAD[:-1], HEAD[:-2], b"\r\nPOST"], ids=["a byte", "CR", "CRLF", "blank"])
async def test_half_a_head_is_a_request_timeout(sent):
    async with running_proxy(server=Server(head_timeout_s=SHORT_S)) as cluster:
        async with raw(cluster.url) as client:
            await client.send(sent)
            answer = await client.answer()
            assert (answer.status, answer.is_last) == (408, True)
            assert answer.error["reason"] == "client_timeout"
            assert "--head-timeout-s" in answer.error["message"]
            assert await client.rest() == b""
        assert (await cluster.samples())['ppd_requests_total{route="none",status="408"}'] == 1


async def test_a_head_that_drips_has_no_more_time_than_another():
    async with running_proxy(server=Server(head_timeout_s=SHORT_S)) as cluster:
        for start, piece in ((b"GET /health HTTP/1.1\r\nHost: a\r\nA: ", b"x"), (b"", b"\r\n")):
            async with raw(cluster.url) as client:
                await client.send(start)
                dripping = cluster.tasks.spawn(drip(client, piece))
                assert b" 408 " in (said := await client.rest()) or (said == b"" and not start)
                dripping.cancel()


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/tokenize", "/engines", "/nowhere"])
@pytest.mark.parametrize("framing", ["length", "chunks", "nothing"])
async def test_half_a_body_is_a_request_timeout(path, framing):
    coding = "Transfer-Encoding: chunked" if framing == "chunks" else f"Content-Length: {len(BODY)}"
    start = b"%x\r\n" % len(BODY) if framing == "chunks" else b""
    async with running_proxy(server=Server(body_timeout_s=SHORT_S)) as cluster, raw(cluster.url) as client:
        await client.send(request("POST", path, ["Content-Type: application/json", coding]))
        if framing != "nothing":
            await client.send(start + BODY[:10])
        answer = await client.answer()
        assert (answer.status, answer.error["reason"], answer.is_last) == (408, "client_timeout", True)
        assert "--body-timeout-s" in answer.error["message"]
        assert await client.rest() == b""


async def test_a_body_that_goes_on_is_waited_for():
    async with running_cluster(server=Server(body_timeout_s=4 * SHORT_S)) as cluster, raw(cluster.url) as client:
        await client.send(HEAD)
        for at in range(0, len(BODY), 10):
            await asyncio.sleep(SHORT_S)
            await client.send(BODY[at : at + 10])
        assert (await client.answer()).status == 200


async def test_who_waits_for_an_answer_is_not_hurried():
    times = Server(keep_alive_s=SHORT_S, head_timeout_s=SHORT_S, body_timeout_s=SHORT_S, write_timeout_s=SHORT_S)
    async with running_cluster(server=times) as cluster, raw(cluster.url) as client:
        cluster.decode.faults.add(Fault(kind="delay", delay_s=4 * SHORT_S))
        await client.send(chat() + HEAD[:20])  # what is sent ahead has its time when its turn comes
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 408


# Reading


@pytest.mark.parametrize("is_last", [False, True], ids=["kept", "last"])
async def test_a_client_that_reads_nothing_of_its_answer_is_cut_off(is_last):
    async with generous_proxy(write_timeout_s=SHORT_S) as (cluster, asked):
        async with unreading(cluster.url) as client:
            await client.send(chat(headers=["Connection: close"] if is_last else []))
            await until(lambda: asked)
            await cut_off(cluster)


async def test_a_client_that_reads_slowly_gets_all_of_its_answer():
    async with generous_proxy(write_timeout_s=4 * SHORT_S) as (cluster, _), unreading(cluster.url) as client:
        await client.send(chat(headers=["Connection: close"]))
        size_bytes = pauses = 0
        while part := await client.reader.read(1 << 20):
            size_bytes += len(part)
            if size_bytes > pauses << 20 and pauses < 8:
                pauses += 1
                await asyncio.sleep(SHORT_S)
        assert size_bytes > ANSWER_BYTES
        assert (await cluster.samples())["ppd_clients_stalled_total"] == 0


async def test_a_client_that_is_slow_to_read_what_the_kernel_holds_gets_all_of_its_answer():
    """The kernel takes more of an answer only when a third of its buffer is free, which is up to megabytes."""
    loop = asyncio.get_running_loop()
    async with generous_proxy(write_timeout_s=5 * SHORT_S) as (cluster, _):
        parts = urlsplit(cluster.url)
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, chat(headers=["Connection: close"]))
            size_bytes = pauses = 0
            while part := await loop.sock_recv(client, 65536):
                size_bytes += len(part)
                if pauses < 12:
                    pauses += 1
                    await asyncio.sleep(SHORT_S)
        assert size_bytes > ANSWER_BYTES
        assert (await cluster.samples())["ppd_clients_stalled_total"] == 0


async def test_a_stream_that_nobody_reads_is_ended_at_the_engine_too():
    piece = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 65536)
    ended = []

    async def answer(wanted):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(wanted)
        try:
            for _ in range(1000):
                await response.write(piece)
        except ConnectionError as error:
            ended.append(error)
            raise
        return response

    async with scripted_engine(answer) as url, running_proxy(server=Server(write_timeout_s=SHORT_S)) as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        async with unreading(cluster.url) as client:
            await client.send(chat(stream=True))
            await until(lambda: ended)
        assert (await cluster.samples())["ppd_clients_stalled_total"] == 1
        await cluster.becomes_idle()


async def test_a_client_that_sends_many_requests_ahead_and_reads_nothing_has_one_of_them_served():
    """The rest waits in its own buffers; then it is cut off."""
    async with generous_proxy(write_timeout_s=2 * SHORT_S) as (cluster, asked), unreading(cluster.url) as client:
        sending = cluster.tasks.spawn(drip(client, chat() * 300))
        await until(lambda: asked)
        await cut_off(cluster)
        sending.cancel()
        assert len(asked) == 1


async def test_requests_sent_ahead_are_served_as_their_answers_are_read():
    """An answer that filled every buffer must not hold up for ever what stands behind it."""
    async with generous_proxy() as (cluster, asked), unreading(cluster.url) as client:
        await client.send(chat() * 3 + request())
        for _ in range(3):
            answer = await client.answer()
            assert answer.status == 200
            assert len(answer.body) > ANSWER_BYTES
        assert json.loads((await client.answer()).body) == {"status": "ok"}
        assert len(asked) == 3
