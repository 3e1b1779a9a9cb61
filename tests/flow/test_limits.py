"""Connections that engines close, bodies that are too large or malformed, prompts that are too long."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, scripted_engine

from ppd_proxy.config.sections import Limits, Server
from ppd_sim.faults import Fault

NO_RETRY = Limits(retries=0)
FORMATS = pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])


async def test_a_connection_that_the_engine_closes_while_it_is_used_again_costs_no_request():
    """uvicorn closes idle connections after 5 s: the next request may already be on its way."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        try:
            for number in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                size = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"content-length")), 0)
                await reader.readexactly(size)
                if number == 0:
                    body = b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}'
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                    )
                    writer.write(body)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, running_proxy(limits=NO_RETRY) as cluster:
        url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]  # noqa: UP031
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        replies = [await cluster.chat(f"Hi {number}") for number in range(6)]
        assert [reply.status for reply in replies] == [200] * 6
        assert len(connections) > 4


async def test_engines_that_close_idle_connections_at_once_cost_no_request():
    async with running_cluster(engine={"keep_alive_s": 0.002}) as cluster:
        for number in range(40):
            reply = await cluster.chat(f"Hi {number}", max_tokens=2)
            assert reply.status == 200, (number, reply.body)
        assert cluster.decode.counts.mismatched_handoffs == 0


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/responses", "/tokenize"])
async def test_a_body_that_is_too_large_is_refused_in_json(path):
    async with running_cluster(server=Server(max_body_bytes=2000)) as cluster:
        reply = await cluster.ask(path, {"prompt": "x" * 3000})
        assert reply.status == 413
        assert reply.headers["content-type"] == "application/json"
        assert "2000" in reply.error["message"]
        assert (cluster.prefill.requests, cluster.decode.requests) == ([], [])
        fine = await cluster.complete("x" * 200)
        assert fine.status == 200


async def test_a_body_that_is_too_large_in_pieces_is_refused_too():
    async def pieces():
        for _ in range(100):
            yield b"x" * 1000

    async with running_cluster(server=Server(max_body_bytes=2000)) as cluster:
        try:
            async with cluster.http.post(cluster.url + CHAT, data=pieces()) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["reason"] == "body_too_large"
        except aiohttp.ClientConnectionError:
            pass  # refused before the client was done sending
        assert (await cluster.samples())['ppd_requests_total{route="none",status="413"}'] == 1


MALFORMED = (
    (CHAT, b"{", None),
    (CHAT, b"[]", None),
    (CHAT, b"", None),
    (CHAT, b"{}", "messages"),
    (CHAT, b'{"messages": "Hi"}', "messages"),
    (CHAT, b'{"messages": ["Hi"]}', "messages"),
    (COMPLETIONS, b"{}", "prompt"),
    (COMPLETIONS, b'{"prompt": null}', "prompt"),
    (COMPLETIONS, b'{"prompt": {"a": 1}}', "prompt"),
    (COMPLETIONS, b'{"prompt": [1.5]}', "prompt"),
    (COMPLETIONS, b'{"prompt": [-1]}', "prompt"),
    ("/v1/responses", b"[", None),
)


async def test_a_malformed_body_is_refused_naming_what_is_wrong():
    async with running_cluster() as cluster:
        for path, body, param in MALFORMED:
            reply = await cluster.ask(path, body, method="POST")
            assert reply.status == 400, (path, body)
            assert reply.error["param"] == param, (path, body)
            assert (param or "JSON") in reply.error["message"]
            assert reply.decision == "none;reason=bad_request;turn=1"
            assert reply.error["type"] == "invalid_request_error"
        assert cluster.prefill.requests == []


@FORMATS
async def test_a_prompt_that_is_too_long_is_the_clients_mistake(stream):
    async with running_cluster(engine={"max_model_len": 64}) as cluster:
        reply = await cluster.chat("word " * 100, stream=stream)
        assert reply.status == 400
        assert "maximum context length" in reply.error["message"]
        # Older engines say 500; that must neither be retried nor count against the engine.
        message = "This model's maximum context length is 64 tokens."
        cluster.prefill.faults.add(Fault(kind="status", status=500, message=message))
        reply = await cluster.chat("word", stream=stream)
        assert reply.status == 400
        assert message in reply.error["message"]
        assert cluster.prefill.faults.hits() == 1


async def test_generation_endpoints_take_post_only():
    async with running_cluster() as cluster:
        for method in ("GET", "PUT", "DELETE"):
            reply = await cluster.ask(CHAT, method=method)
            assert (reply.status, reply.headers["content-type"]) == (405, "application/json")
            assert reply.error["message"]


async def test_large_bodies_pass_unharmed():
    """Quart's own limit is 16 MiB; base64 images go far beyond it."""
    async with running_cluster() as cluster:
        url = "data:image/png;base64," + "A" * (20 << 20)
        reply = await cluster.chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
        assert (reply.status, reply.route) == (200, "pd")
        assert cluster.decode.counts.mismatched_handoffs == 0
        (leg,) = cluster.decode.requests
        assert leg.body["messages"][0]["content"][0]["image_url"]["url"] == url


async def test_w3_error_bodies_that_are_no_json_are_told_in_our_words_with_their_status():
    async def answer(_):
        return web.Response(status=418, text="<html>teapot</html>", content_type="text/html")

    async with scripted_engine(answer) as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.headers["content-type"]) == (418, "application/json")
        assert reply.error["message"] == "the engine answered 418: <html>teapot</html>"


@pytest.mark.parametrize("said", [b'{"error": {"message": "slow down"}}', b"slow down"])
async def test_retry_after_of_an_engine_reaches_the_client(said):
    async def answer(_):
        return web.Response(status=429, body=said, headers={"retry-after": "7"}, content_type="application/json")

    async with scripted_engine(answer) as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        reply = await cluster.chat("Hi")
        assert (reply.status, reply.headers["retry-after"]) == (429, "7")
        assert "slow down" in reply.error["message"]
