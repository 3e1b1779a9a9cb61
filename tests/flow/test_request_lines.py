"""Which requests have a line in the log and count, and that they name endpoint and model."""

import asyncio
import re

import pytest
from aiohttp import web
from prometheus_client.registry import Collector
from tests.support.cluster import CHAT, running_cluster, running_proxy, scripted_engine, user

from ppd_proxy.config.sections import Auth, Server


async def open_raw(url):
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


FIELD = re.compile(r"""(\w+)=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S+)""")


@pytest.fixture
def lines(capsys):
    """The fields of the requests' lines so far, once the proxy has stopped."""

    def read():
        said = capsys.readouterr().err.splitlines()
        return [dict(FIELD.findall(line)) for line in said if " ppd_proxy.request: " in line]

    return read


def told(fields, *names):
    return tuple(fields.get(name) for name in names)


async def test_generation_requests_name_endpoint_and_model(lines):
    async with running_cluster() as cluster:
        await cluster.chat("Hi", model="sim")
        await cluster.complete("Hi")
        await cluster.ask("/v1/responses?beta=secret", {"input": "Hi", "model": "sim"})
        await cluster.ask(CHAT, {"model": "sim", "messages": 7})
        await cluster.ask(CHAT, b'{"model": "sim", broken')
        await cluster.ask(CHAT, method="GET")
    assert [told(each, "endpoint", "model", "status") for each in lines()] == [
        ("/v1/chat/completions", "sim", "200"),
        ("/v1/completions", None, "200"),
        ("/v1/responses", "sim", "200"),
        ("/v1/chat/completions", "sim", "400"),
        ("/v1/chat/completions", None, "400"),
        ("/v1/chat/completions", None, "405"),
    ]


async def test_what_is_refused_elsewhere_has_a_line_our_error_and_counts(lines):
    auth = Auth(api_key=("key",), admin_key="admin")
    async with running_cluster(auth=auth, server=Server(max_body_bytes=1000)) as cluster:
        asked = [
            await cluster.ask("/v1/nothing?key=secret"),
            await cluster.ask("/v1/chat/completions/", {"model": "sim"}),
            await cluster.ask("/v1/embeddings", method="GET"),
            await cluster.ask("/v1/models"),
            await cluster.ask("/mode"),
            await cluster.ask("/v1/embeddings", {"input": "x" * 2000}),
        ]
        samples = await cluster.samples()
    expected = [
        ("/v1/nothing", "404", "bad_request"),
        ("/v1/chat/completions/", "404", "bad_request"),
        ("/v1/embeddings", "405", "bad_request"),
        ("/v1/models", "401", "unauthorized"),
        ("/mode", "401", "unauthorized"),
        ("/v1/embeddings", "413", "body_too_large"),
    ]
    said = lines()
    assert [told(each, "endpoint", "status", "reason") for each in said] == expected
    assert [each.get("model") for each in said] == [None, "sim", None, None, None, None]
    assert [(str(reply.status), reply.error["reason"]) for reply in asked] == [each[1:] for each in expected]
    assert asked[0].error["message"] == "'/v1/nothing' is no endpoint of this proxy"
    assert asked[2].error["message"] == "/v1/embeddings takes POST, not GET"
    assert asked[2].headers["allow"] == "POST"
    assert samples['ppd_requests_total{route="none",status="404"}'] == 2
    assert samples['ppd_route_decisions_total{mode="ppd",reason="unauthorized",route="none"}'] == 2


async def test_what_is_passed_on_has_a_line_with_its_engine_and_model(lines):
    async with running_cluster(prefill=0) as cluster:
        assert (await cluster.ask("/v1/models")).status == 200
        await cluster.ask("/tokenize", {"prompt": "Hi", "model": "sim"})
        samples = await cluster.samples()
        await cluster.decode.stop()
        assert (await cluster.ask("/v1/models")).status == 502
    here = cluster.engines[0].http_address
    assert [told(each, "route", "reason", "endpoint", "model", "decode", "status") for each in lines()] == [
        ("none", "passed_on", "/v1/models", None, here, "200"),
        ("none", "passed_on", "/tokenize", "sim", here, "200"),
        ("none", "engine_unreachable", "/v1/models", None, here, "502"),
    ]
    assert samples['ppd_requests_total{route="none",status="200"}'] == 2


async def test_probes_scrapes_and_what_operators_ask_have_no_line(lines):
    async with running_cluster(prefill=0, decode=0) as cluster:
        for path in ("/health", "/ready", "/metrics", "/mode", "/engines"):
            await cluster.ask(path)
    assert lines() == []


@pytest.mark.parametrize("odd", ["a b", "x status=200", "x\ny", 'x"y', "x'y", "é", "\x1b[2J", "\u2028", " "])
async def test_no_model_forges_a_field_or_a_line(lines, odd):
    async with running_cluster() as cluster:
        await cluster.chat([user("Hi")], model=odd, top_p=9)
    [fields] = lines()
    assert fields["model"] == repr(odd)
    assert fields["status"] == "404"


@pytest.mark.parametrize("path", ["/a%0ab", "/a%20status=200", "/%ff", "/%C3%A9", "/a'b", '/a"b'])
async def test_no_path_forges_a_field_or_a_line(lines, path):
    async with running_cluster() as cluster:
        reader, writer = await open_raw(cluster.url)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 404")
    [fields] = lines()
    assert fields["endpoint"] in (path, repr(path))
    assert fields["status"] == "404"


async def test_long_names_are_cut(lines):
    async with running_cluster() as cluster:
        await cluster.chat("Hi", model="m" * 10_000, top_p=9)
        await cluster.ask("/" + "p" * 10_000)
    said = lines()
    assert all(len(" ".join(each.values())) < 1000 for each in said)
    assert said[0]["model"].startswith("""'"mmmm""")


@pytest.mark.parametrize("model", [7, None, ["sim"], {}])
async def test_a_model_that_is_no_text_is_not_named(lines, model):
    async with running_cluster() as cluster:
        await cluster.chat("Hi", model=model, top_p=9)
    [fields] = lines()
    assert "model" not in fields


class Broken(Collector):
    def describe(self):
        return []

    def collect(self):
        raise RuntimeError("a bug")


async def test_a_bug_is_an_internal_error_with_a_line(lines):
    async with running_cluster() as cluster:
        cluster.runtime.registry.register(Broken())
        reply = await cluster.ask("/metrics")
    assert (reply.status, reply.error["reason"], reply.error["type"]) == (500, "internal_error", "proxy_error")
    [fields] = lines()
    assert told(fields, "endpoint", "status", "reason") == ("/metrics", "500", "internal_error")


async def test_what_is_passed_on_and_breaks_off_says_so_in_its_line(lines, caplog):
    async def answer(wanted):
        response = web.StreamResponse(headers={"content-length": "1000"})
        await response.prepare(wanted)
        await response.write(b'{"data": [1, 2')
        wanted.transport.close()
        return response

    async with scripted_engine(answer, "/v1/embeddings") as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        reply = await cluster.ask("/v1/embeddings", {"input": "a"})
        assert (reply.status, reply.body, reply.broken is not None) == (200, b'{"data": [1, 2', True)
    assert "Traceback" not in caplog.text
    [line] = [each for each in lines() if each["endpoint"] == "/v1/embeddings"]
    assert "broke off" in line["error"]
