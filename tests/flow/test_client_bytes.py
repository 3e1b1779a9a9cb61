"""What a client may send, byte by byte against the port: heads, framing, offers to upgrade, requests sent ahead.

Whatever stands behind the port must pass these: they know no server.
"""

import asyncio
import json
import socket

import pytest
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, until, user
from tests.support.raw_client import chat, raw, request

from ppd_proxy.config.sections import Auth, Server
from ppd_sim.faults import Fault

POST = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
BODY = json.dumps({"messages": [user("Hi")], "max_tokens": 3}).encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
SMUGGLED = json.dumps({"url": "http://127.0.0.1:9", "role": "aggregated"}).encode()
UPGRADE = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"]


def refused_total(samples, status):
    return samples.get(f'ppd_requests_total{{route="none",status="{status}"}}', 0)


# Offers to upgrade


@pytest.mark.parametrize("offer", [UPGRADE, ["Connection: keep-alive, upgrade", "Upgrade: websocket"]])
async def test_the_body_behind_an_offer_to_upgrade_is_the_body_wherever_it_is_split(offer):
    inner = request("POST", "/engines", ["Content-Type: application/json"], SMUGGLED)
    body = json.dumps({"messages": [user("Hi")], "max_tokens": 2, "user": inner.decode()}).encode()
    whole = request("POST", CHAT, [*offer, "Content-Type: application/json"], body)
    head_bytes = len(whole) - len(body)
    async with running_cluster() as cluster, raw(cluster.url) as client:
        known = len(cluster.runtime.fleet.engines())
        places = {1, 30, head_bytes - 1, head_bytes, head_bytes + 1, *range(head_bytes + 2, len(whole), 9)}
        for place in sorted(places):
            await client.send(whole[:place], whole[place:])
            answer = await client.answer()
            assert (answer.status, json.loads(answer.body)["object"]) == (200, "chat.completion"), place
        assert len(cluster.decode.requests) == len(places)
        assert len(cluster.runtime.fleet.engines()) == known
        for leg in (*cluster.prefill.requests, *cluster.decode.requests):
            assert not {"upgrade", "http2-settings"} & set(leg.headers)


@pytest.mark.parametrize("is_split", [False, True])
async def test_a_request_in_the_body_behind_an_offer_to_upgrade_never_runs(is_split):
    """The body is a request of its own, as bytes: it must be refused as a body, and nothing else must happen."""
    inner = request("POST", "/engines", ["Content-Type: application/json"], SMUGGLED)
    async with running_cluster() as cluster:
        known = len(cluster.runtime.fleet.engines())
        for path in (CHAT, COMPLETIONS, "/v1/messages", "/tokenize", "/engines", "/mode/pd", "/nowhere"):
            head = request("POST", path, [*UPGRADE, f"Content-Length: {len(inner)}"])
            async with raw(cluster.url) as client:
                await client.send(*((head, inner) if is_split else (head + inner,)))
                first = await client.answer()
                assert first.status != 101, path
                await client.send(request())
                assert json.loads((await client.answer()).body) == {"status": "ok"}, path
        assert len(cluster.runtime.fleet.engines()) == known


async def test_a_get_that_offers_to_upgrade_is_an_ordinary_get():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(request(headers=UPGRADE) + request(headers=UPGRADE))
        for _ in range(2):
            assert (await client.answer()).status == 200


async def test_connect_makes_no_tunnel():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(b"CONNECT engine:80 HTTP/1.1\r\nHost: engine:80\r\n\r\n" + request())
        answer = await client.answer()
        assert (answer.status, answer.is_last) == (405, True)
        assert await client.rest() == b""


# Two readings of one message

ILL_FORMED = {
    "a line of the head ends with LF": POST + b"A: b\n" + LENGTH + b"\r\n" + BODY,
    "no line ends with CR": POST.replace(b"\r", b"") + LENGTH.replace(b"\r", b"") + b"\n" + BODY,
    "the request line ends with LF": POST.replace(b"\r\n", b"\n", 1) + LENGTH + b"\r\n" + BODY,
    "a CR within a value": POST + b"A: b\rc\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded line": POST + b"A: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded length": POST + b"Content-Length:\r\n %d\r\n\r\n" % len(BODY) + BODY,
    "a folded first line": POST + b" A: b\r\n" + LENGTH + b"\r\n" + BODY,
    "a space before the colon": POST + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "a tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "a NUL in a value": POST + b"A: b\0c\r\n" + LENGTH + b"\r\n" + BODY,
    "a NUL in a name": POST + b"A\0: b\r\n" + LENGTH + b"\r\n" + BODY,
    "a control character": POST + b"A: b\x7f\r\n" + LENGTH + b"\r\n" + BODY,
    "no colon": POST + b"Nonsense\r\n" + LENGTH + b"\r\n" + BODY,
    "no name": POST + b": x\r\n" + LENGTH + b"\r\n" + BODY,
    "two lengths": POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "the same length twice": POST + LENGTH + LENGTH + b"\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: %d, %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
    "a signed length": POST + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length in hexadecimal": POST + b"Content-Length: 0x%x\r\n\r\n" % len(BODY) + BODY,
    "an endless length": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
    "an empty length": POST + b"Content-Length:\r\n\r\n" + BODY,
    "no host": POST.replace(b"Host: 127.0.0.1\r\n", b"") + LENGTH + b"\r\n" + BODY,
    "two hosts": POST + b"Host: other\r\n" + LENGTH + b"\r\n" + BODY,
    "length and coding": POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding of HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with LF": POST + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "a chunk size with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "a chunk size with 0x": POST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "an empty chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n",
    "a chunk size of 40 digits": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\na\r\n0\r\n\r\n",
    "a chunk that is longer": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "a trailer with LF": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\n\r\n\r\n",
    "two spaces": POST.replace(b"POST ", b"POST  ", 1) + LENGTH + b"\r\n" + BODY,
    "a tab in the request line": POST.replace(b" HTTP", b"\tHTTP", 1) + LENGTH + b"\r\n" + BODY,
    "bytes in the target": POST.replace(b"/v1", b"/\xff", 1) + LENGTH + b"\r\n" + BODY,
    "no path": b"GET health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no version": b"GET /health\r\nHost: 127.0.0.1\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", ILL_FORMED)
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(name):
    async with running_proxy() as cluster:
        async with raw(cluster.url) as client:
            await client.send(ILL_FORMED[name] + request())
            answer = await client.answer()
            assert (answer.status, answer.is_last) == (400, True)
            assert answer.error["reason"] == "bad_request"
            assert answer.error["message"]
            assert await client.rest() == b""
        assert refused_total(await cluster.samples(), 400) == 1


@pytest.mark.parametrize(
    "sent", [b"GET /health HTTP/1.1\nHost: 127.0.0.1\n\n", POST + b"A: b\n", POST + b"A: b\rc", b"\n", b"\n\n"]
)
async def test_a_line_that_ends_otherwise_is_refused_at_once_and_not_waited_for(sent):
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(sent)
        async with asyncio.timeout(5):  # long before the time for a head is over
            assert (await client.answer()).status == 400


async def test_other_versions_of_http_are_not_spoken():
    async with running_proxy() as cluster:
        for first in (b"PRI * HTTP/2.0", b"GET / HTTP/2.0", b"GET / HTTP/0.9"):
            async with raw(cluster.url) as client:
                await client.send(first + b"\r\nHost: 127.0.0.1\r\n\r\nSM\r\n\r\n")
                assert (await client.answer()).status == 505


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "X-Api-Key: {}", "X-Admin-Key: {}"])
async def test_two_different_keys_in_one_request_are_refused(header):
    async with running_proxy(auth=Auth(api_key=("one",), admin_key="two")) as cluster:
        for first, second in (("one", "two"), ("two", "one")):
            async with raw(cluster.url) as client:
                await client.send(request(target="/mode", headers=[header.format(first), header.format(second)]))
                answer = await client.answer()
                assert (answer.status, answer.error["reason"]) == (400, "bad_request")
                assert header.split(":")[0].lower() in answer.error["message"]
        async with raw(cluster.url) as client:
            await client.send(request(headers=[header.format("one"), header.format("one")]))
            assert (await client.answer()).status == 200


async def test_what_comes_behind_a_body_in_chunks_speaks_for_nothing():
    """A trailer is read past: its fields are no headers, and the next request begins behind it."""
    body = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer key\r\nX-Session-Id: 7\r\nX-Late: 1\r\n\r\n" % (len(BODY), BODY)
    sent = POST + b"Transfer-Encoding: chunked\r\n\r\n" + body
    async with running_cluster() as cluster:
        async with raw(cluster.url) as client:
            await client.send(sent + request())
            assert (await client.answer()).status == 200
            assert json.loads((await client.answer()).body) == {"status": "ok"}
        for leg in (*cluster.prefill.requests, *cluster.decode.requests):
            assert not {"authorization", "x-session-id", "x-late"} & set(leg.headers)


async def test_a_body_in_chunks_is_the_same_wherever_it_is_split():
    framed = b"".join(
        b"%X;ext=1\r\n%b\r\n" % (len(BODY[at : at + 20]), BODY[at : at + 20]) for at in range(0, len(BODY), 20)
    )
    whole = POST + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    async with running_cluster() as cluster, raw(cluster.url) as client:
        for place in range(1, len(whole), 3):
            await client.send(whole[:place], whole[place:])
            assert (await client.answer()).status == 200, place
        await client.send(*(whole[at : at + 1] for at in range(len(whole))))
        assert (await client.answer()).status == 200
        assert {json.dumps(leg.body["messages"]) for leg in cluster.decode.requests} == {json.dumps([user("Hi")])}


async def test_chunks_of_a_byte_or_two_without_end_are_refused():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 900 + b"\r\na\r\n")
        for _ in range(100):
            await client.send((b"1;" + b"x" * 900 + b"\r\na\r\n") * 10)
        assert (await client.answer()).status == 400


async def test_targets_may_be_urls_and_line_ends_may_stand_before_a_request():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        for sent in (
            request(target="http://proxy/health"),
            request(target="http://proxy/health?x=1"),
            request(target="/he%61lth"),
            request(target="/health#x?y"),
            b"\r\n\r\n" + request(),
        ):
            await client.send(sent)
            assert json.loads((await client.answer()).body) == {"status": "ok"}
        for place in range(1, 8):
            sent = b"\r\n\r\n" + request()
            await client.send(sent[:place], sent[place:])
            assert (await client.answer()).status == 200


# Heads without measure


def long_heads(limit_bytes):
    """Heads beyond the limit: the request, the status it gets."""
    filler = b"x" * limit_bytes
    return {
        "url": (b"GET /" + filler + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
        "query": (b"POST " + CHAT.encode() + b"?" + filler + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
        "method": (filler + b" / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
        "header": (POST + b"A: " + filler + b"\r\n" + LENGTH + b"\r\n" + BODY, 431),
        "name": (POST + filler + b": x\r\n" + LENGTH + b"\r\n" + BODY, 431),
        "many headers": (POST + b"A: bcde\r\n" * (limit_bytes // 9 + 1) + LENGTH + b"\r\n" + BODY, 431),
        "no end": (POST + b"A: " + filler, 431),
    }


@pytest.mark.parametrize("name", long_heads(1))
@pytest.mark.parametrize("has_key", [True, False])
async def test_a_head_beyond_the_limit_is_refused_before_anything_is_looked_at(name, has_key):
    sent, status = long_heads(2048)[name]
    auth = Auth(api_key=("key",)) if has_key else Auth()
    async with running_proxy(server=Server(max_head_bytes=2048), auth=auth) as cluster:
        for size in (len(sent), 700, 64):
            async with raw(cluster.url) as client:
                await client.send(*(sent[at : at + size] for at in range(0, len(sent), size)))
                answer = await client.answer()
                assert (answer.status, answer.is_last) == (status, True)
                assert answer.error["reason"] == "head_too_large"
                assert "2048" in answer.error["message"]
                assert "--max-head-bytes" in answer.error["message"]
                assert await client.rest() == b""
        assert refused_total(await cluster.samples(), status) == 3


async def test_a_head_of_just_the_limit_is_served():
    async with running_proxy(server=Server(max_head_bytes=2048)) as cluster, raw(cluster.url) as client:
        for size_bytes, status in ((2047, 200), (2048, 200), (2049, 431)):
            start = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nA: "
            sent = start + b"x" * (size_bytes - len(start) - 4) + b"\r\n\r\n"
            await client.send(sent)
            assert (await client.answer()).status == status


async def test_a_url_of_twenty_megabytes_costs_nothing_and_is_told_why():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        sending = cluster.tasks.spawn(client.send(b"GET /" + b"x" * (20 << 20)))
        assert (await client.answer()).status == 414
        sending.cancel()


async def test_hundreds_of_headers_are_too_many():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(request(headers=[f"A{number}: b" for number in range(600)]))
        assert (await client.answer()).status == 431


# Requests sent ahead


async def test_requests_sent_ahead_are_read_one_at_a_time():
    """Many large ones wait in the client's own buffers while the first is answered."""
    body = json.dumps({"messages": [user("x" * 100_000)], "max_tokens": 2}).encode()
    sent = request("POST", CHAT, ["Content-Type: application/json"], body)
    async with running_cluster() as cluster, raw(cluster.url) as client:
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        cluster.prefill.faults.add(Fault(kind="delay", delay_s=0.3, times=1))
        sending = cluster.tasks.spawn(client.send(*[sent] * 60))
        for answers in range(1, 6):
            assert (await client.answer()).status == 200
            assert not sending.done(), "all of them were read"
            assert len(cluster.decode.requests) <= answers + 1
        sending.cancel()


async def test_many_small_requests_in_one_segment_are_all_answered_in_order():
    async with running_cluster() as cluster, raw(cluster.url) as client:
        await client.send(b"".join(chat(f"Number {number}", max_tokens=2) + request() for number in range(100)))
        for _ in range(100):
            assert json.loads((await client.answer()).body)["object"] == "chat.completion"
            assert json.loads((await client.answer()).body) == {"status": "ok"}
        assert [leg.body["messages"][0]["content"] for leg in cluster.decode.requests] == [
            f"Number {number}" for number in range(100)
        ]


async def test_hundreds_of_refused_requests_in_one_segment_are_all_answered():
    """Each is answered before anything waits: their answers may not be given one inside the other."""
    refused = request("POST", CHAT, ["Content-Type: application/json"], b"{")
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(refused * 400)
        for _ in range(400):
            assert (await client.answer()).status == 400
        await client.send(request())
        assert json.loads((await client.answer()).body) == {"status": "ok"}


async def test_a_request_behind_the_last_one_of_its_connection_is_not_answered():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(request(headers=["Connection: CLOSE"]) + request())
        assert (await client.answer()).is_last
        assert await client.rest() == b""
    async with running_proxy() as cluster, raw(cluster.url) as client:
        await client.send(b"GET /health HTTP/1.0\r\n\r\n")
        assert (await client.answer()).is_last
        assert await client.rest() == b""


async def test_a_client_that_still_sends_its_body_gets_its_refusal():
    """Closing on bytes that nobody read would take the answer away from it."""
    async with running_proxy(server=Server(max_body_bytes=1000)) as cluster:
        async with raw(cluster.url) as client:
            client.writer.transport.pause_reading()  # it sends all it has before it looks
            await client.send(POST + b"Content-Length: 2000000\r\n\r\n", *[b"x" * 100_000] * 20)
            client.writer.transport.resume_reading()
            answer = await client.answer()
            assert (answer.status, answer.error["reason"]) == (413, "body_too_large")
            assert await client.rest() == b""


async def test_the_body_of_a_request_that_nobody_serves_is_no_request():
    async with running_proxy() as cluster, raw(cluster.url) as client:
        inner = request(target="/ready")
        await client.send(request("POST", "/nowhere", [f"Content-Length: {len(inner)}"]))
        await client.send(inner, request())
        assert (await client.answer()).status == 404
        assert json.loads((await client.answer()).body) == {"status": "ok"}


async def test_a_continue_is_sent_once_the_body_is_wanted():
    async with running_cluster() as cluster, raw(cluster.url) as client:
        await client.send(request("POST", CHAT, ["Expect: 100-continue", f"Content-Length: {len(BODY)}"]))
        assert await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(BODY)
        assert (await client.answer()).status == 200
        await until(lambda: cluster.is_idle)
