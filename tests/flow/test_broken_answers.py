"""Another program on an engine's port, and engines whose answers are none: clients get whole answers or errors."""

import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, limits, running_cluster, running_proxy, scripted_engine

HTML = "<html><h1>Welcome</h1></html>"
PATHS = (CHAT, COMPLETIONS, "/v1/responses", "/v1/messages")
BODIES = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    COMPLETIONS: {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
}
PARAMS = {"remote_host": "10.0.0.1", "remote_block_ids": [[1]]}


class Program:
    """Something else that answers everything alike."""

    def __init__(self, **answer):
        self.answer = answer
        self.asked = 0

    async def __call__(self, request):
        self.asked += 1
        return web.Response(**self.answer)


ANSWERS = {
    "HTML": {"text": HTML, "content_type": "text/html"},
    "a list of files": {"text": "[]", "content_type": "application/json"},
    "an empty object": {"text": "{}", "content_type": "application/json"},
    "an error with status 200": {"text": '{"error": {"message": "no"}}', "content_type": "application/json"},
    "a redirect": {"status": 307, "headers": {"location": "http://10.0.0.1/login"}},
    "nothing": {"status": 204},
    "HTML as a stream": {"text": HTML + "\n\n", "content_type": "text/event-stream"},
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("kind", ANSWERS)
async def test_w3_another_program_on_a_port_answers_no_client(kind, stream):
    program = Program(**ANSWERS[kind])
    async with scripted_engine(program, *PATHS) as url, running_cluster(prefill=0, decode=0, aggregated=1) as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        for number in range(12):
            reply = await cluster.chat(f"Hi {number}", stream=stream)
            assert reply.status == 200
            assert reply.text
        assert program.asked > 0


@pytest.mark.parametrize("kind", ANSWERS)
async def test_w3_another_program_on_a_prefill_engines_port_is_a_failed_engine(kind):
    program = Program(**ANSWERS[kind])
    async with scripted_engine(program) as url, running_cluster() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "prefill"})
        reasons = set()
        for number in range(12):
            reply = await cluster.chat(f"Hi {number}")
            assert (reply.status, reply.route) == (200, "pd")
            reasons.add(reply.reason)
        assert program.asked > 0
        assert reasons >= {"prefill_failed"}
        assert (await cluster.samples()).get("ppd_kv_stranded_total", 0) == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ANSWERS)
async def test_w3_where_there_is_nothing_else_the_client_gets_a_502(kind, path):
    program = Program(**ANSWERS[kind])
    async with scripted_engine(program, *PATHS) as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        for stream in (False, True):
            reply = await cluster.ask(path, {**BODIES[path], "stream": stream})
            assert reply.status == 502
            assert reply.error["reason"] == "engine_error"
            assert "location" not in reply.headers
            assert b"Welcome" not in reply.body


@asynccontextmanager
async def failing(status, body, content_type="application/json"):
    program = Program(status=status, body=body, content_type=content_type)
    async with scripted_engine(program, *PATHS) as url, running_proxy(**limits()) as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        yield cluster


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_w3_errors_that_cannot_be_filtered_are_not_passed_on(status, path):
    told = json.dumps({"error": {"message": "lost"}, "kv_transfer_params": PARAMS}).encode()
    bodies = {told[:-1]: "application/json", HTML.encode(): "text/html", told + b"x": "text/plain"}
    for body, content_type in bodies.items():
        async with failing(status, body, content_type) as cluster:
            for stream in (False, True):
                reply = await cluster.ask(path, {**BODIES[path], "stream": stream})
                assert reply.status == status
                assert reply.headers["content-type"] == "application/json"
                assert f"the engine answered {status}" in reply.error["message"]
                assert b"transfer_params" not in reply.body
                assert b"10.0.0.1" not in reply.body
                assert ("Welcome" in reply.error["message"]) == (b"Welcome" in body)
                assert (path == "/v1/messages") == (reply.json.get("type") == "error")


@pytest.mark.parametrize("path", PATHS)
async def test_w3_an_engines_own_errors_pass_byte_for_byte(path):
    body = b'{"error": {"message":"top_p must be in (0, 1]", "type":"BadRequestError","param":"top_p","code":400}}'
    async with failing(400, body) as cluster:
        reply = await cluster.ask(path, BODIES[path])
        assert (reply.status, reply.body) == (400, body)


async def test_w4_every_refusal_on_messages_is_in_its_dialect():
    async with running_proxy() as cluster:
        for status, kind, reply in (
            (400, "invalid_request_error", await cluster.ask("/v1/messages", b"[", method="POST")),
            (405, "invalid_request_error", await cluster.ask("/v1/messages", method="GET")),
            (503, "overloaded_error", await cluster.ask("/v1/messages", BODIES["/v1/messages"])),
        ):
            assert reply.status == status
            assert reply.json["type"] == "error"
            assert reply.error["type"] == kind
            assert reply.error["message"]
