"""Clients that speak HTTP/1.0, as load balancers and small tools do: they know no chunks."""

import json

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, scripted_engine
from tests.support.raw_client import chat, raw, request

from ppd_proxy.config.sections import Server
from ppd_sim.faults import Fault


def old(sent):
    return sent.replace(b" HTTP/1.1\r\nHost: 127.0.0.1\r\n", b" HTTP/1.0\r\n")


async def told(url, sent):
    """Head and body of the one answer."""
    async with raw(url) as client:
        await client.send(old(sent))
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    return head, body


async def test_a_stream_is_its_events_and_nothing_else():
    async with running_cluster() as cluster:
        for _ in range(2):
            _, body = await told(cluster.url, chat(stream=True, max_tokens=30))
            events = body.decode().split("\n\n")
            assert events[-2:] == ["data: [DONE]", ""]
            assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events[:-2])


async def test_a_stream_that_fails_ends_with_its_error_event():
    async with running_cluster() as cluster:
        cluster.decode.faults.add(Fault(kind="die_after", chunks=2))
        _, body = await told(cluster.url, chat(stream=True, max_tokens=30))
        last = body.rpartition(b"data: ")[2]
        assert json.loads(last)["error"]["type"] == "engine_error"


async def test_what_is_passed_on_is_the_engines_answer():
    async with running_cluster() as cluster:
        assert json.loads((await told(cluster.url, request("GET", "/v1/models")))[1])["data"]
        asked = request("POST", "/tokenize", ["Content-Type: application/json"], b'{"prompt": "Hi"}')
        assert json.loads((await told(cluster.url, asked))[1])["tokens"]


async def test_an_answer_with_a_length_keeps_it():
    async with running_cluster() as cluster:
        for sent in (chat(), request()):
            head, body = await told(cluster.url, sent)
            assert f"content-length: {len(body)}\r\n".encode() in head + b"\r\n"


async def test_an_answer_that_is_cut_is_reset_and_does_not_just_end():
    async def answer(wanted):
        response = web.StreamResponse(headers={"content-length": "1000"})
        await response.prepare(wanted)
        await response.write(b'{"data": [1, 2')
        wanted.transport.close()
        return response

    async with scripted_engine(answer, CHAT, COMPLETIONS, "/v1/embeddings") as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        async with raw(cluster.url) as client:
            await client.send(old(request("POST", "/v1/embeddings", [], b'{"input": "a"}')))
            with pytest.raises(ConnectionResetError):
                await client.reader.read()


async def test_a_stream_longer_than_every_buffer_arrives_whole():
    piece = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 65536)
    end = b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    async def answer(wanted):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(wanted)
        for _ in range(200):
            await response.write(piece)
        await response.write(end)
        return response

    async with scripted_engine(answer) as url, running_proxy(server=Server()) as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        _, body = await told(cluster.url, chat(stream=True))
        assert body == piece * 200 + end
