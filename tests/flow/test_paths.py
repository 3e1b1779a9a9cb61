"""What a client writes into the request line, and what of it an engine sees: raw bytes on both sides."""

from contextlib import asynccontextmanager

import pytest
from tests.support.cluster import CHAT, running_proxy, user
from tests.support.raw import ask_raw
from tests.support.scripted import Line, answer, scripted

HEALTHY = answer(200, b"{}")
CHATTED = answer(200, b'{"id":"x","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}')


@asynccontextmanager
async def proxy_and_targets():
    """A proxy in front of one unsplit engine, and the request targets that the engine saw; probes are left out."""
    seen: list[bytes] = []

    async def talk(line: Line) -> None:
        while True:
            target = (await line.request()).split(b" ", 2)[1]
            if target != b"/health":
                seen.append(target)
            await line.send(CHATTED if target.startswith(CHAT.encode()) else HEALTHY)

    async with scripted(talk) as engine, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": f"http://{engine.origin.authority}", "role": "aggregated"})
        yield cluster, seen


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/v1/models", b"/v1/models"), (b"/v1/%6dodels", b"/v1/models"), (b"/version?a=%2e%2e", b"/version?a=%2e%2e"),
        (b"/v1/models/org/name", b"/v1/models/org/name"), (b"/v1/models/org%2fname", b"/v1/models/org/name"),
        (b"/v1/models/a%20b%3f", b"/v1/models/a%20b%3F"), (b"/v1/models/..name", b"/v1/models/..name"),
        (b"/version", b"/version"), (b"/%76ersion#x", b"/version"),
    ],
)  # fmt: skip
async def test_a_path_of_the_table_is_forwarded_in_its_plain_form(target, wanted):
    async with proxy_and_targets() as (cluster, seen):
        assert (await ask_raw(cluster.url, b"GET", target)).status == 200
        assert seen == [wanted]


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models/..%2f..%2fsleep", b"/v1/models/../../sleep", b"/v1/models/%2e%2e/%2e%2e/sleep", b"/v1/models/..",
        b"/v1/models/a/../../../sleep", b"/v1/models/%252e%252e%252f%252e%252e%252fsleep", b"/v1/models/..%5c..%5cx",
        b"/v1/models/a%0d%0ax:y", b"/v1/models/a%00", b"/v1/models/%c0%ae%c0%ae%2fsleep", b"/v1/models/%ff",
        b"/v1/models/", b"/v1/models//", b"/v1/models//sleep", b"//v1/models", b"/v1//models", b"/v1/../sleep",
        b"/v1/models/a%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fmetrics", b"/sleep",
    ],
)  # fmt: skip
async def test_no_other_path_reaches_an_engine(target):
    async with proxy_and_targets() as (cluster, seen):
        reply = await ask_raw(cluster.url, b"GET", target)
        assert (reply.status, seen) == (404, [])
        assert reply.error["message"]


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"POST", b"DELETE", b"PUT", b"TRACE"])
async def test_only_the_method_of_the_table_reaches_an_engine(method):
    async with proxy_and_targets() as (cluster, seen):
        for target in (b"/v1/models", b"/v1/models/org/name", b"/version"):
            assert (await ask_raw(cluster.url, method, target)).status == 405
        for target in (b"/tokenize", b"/v1/embeddings"):
            assert (await ask_raw(cluster.url, method, target)).status == (200 if method == b"POST" else 405)
        assert seen == ([b"/tokenize", b"/v1/embeddings"] if method == b"POST" else [])


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/v1/%63hat/completions", CHAT.encode()), (b"/v1%2fchat%2fcompletions", CHAT.encode()),
        (b"/%76%31/chat/completion%73?a=1&b=%2e%2e", CHAT.encode() + b"?a=1&b=%2e%2e"),
    ],
)  # fmt: skip
async def test_a_generation_request_is_forwarded_under_the_path_that_was_matched(target, wanted):
    async with proxy_and_targets() as (cluster, seen):
        body = {"messages": [user("Hi")], "max_tokens": 1}
        assert (await ask_raw(cluster.url, b"POST", target, body)).status == 200
        assert seen == [wanted]


async def test_a_slash_too_many_is_no_redirect():
    async with running_proxy() as cluster:
        for target in (b"/mode//pd", b"/v1//models", b"/accuracy//noise", b"//evil.example/x"):
            reply = await ask_raw(cluster.url, b"GET", target)
            assert (reply.status, "location" in reply.headers) == (404, False)
