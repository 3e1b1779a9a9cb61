"""The end of the proxy: TERM, the time to drain, the grace, and what the clients that are left get."""

import asyncio
import json
import signal
import sys
from contextlib import suppress

import pytest
from aiohttp import web
from tests.support.cluster import LIMIT_S, running_cluster, running_proxy, scripted_engine, until, user
from tests.support.raw_client import chat, raw, request

from ppd_proxy.config.sections import Server
from ppd_proxy.server import listening
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

SLOW = {"timing": TimingConfig(decode_ms_per_token=20)}
NOW = Server(drain_s=0)
STALL = Fault(kind="stall_after", chunks=2)


async def ended(cluster):
    async with asyncio.timeout(LIMIT_S):
        await cluster.runtime._server.ended.wait()


async def takes_nobody(cluster):
    await until(lambda: cluster.runtime._server._socket is None)
    with pytest.raises(ConnectionRefusedError):
        async with raw(cluster.url):
            pass


async def first_content(client):
    async with asyncio.timeout(LIMIT_S):
        await client.reader.readuntil(b'"content"')


async def test_while_it_drains_it_is_not_ready_and_serves_as_before():
    async with running_cluster(server=Server(drain_s=60)) as cluster, raw(cluster.url) as kept:
        await kept.send(request(target="/ready"))
        assert (await kept.answer()).status == 200
        cluster.runtime.ask_to_stop()
        for sent in (chat(), chat(stream=True), request()):
            await kept.send(sent)
            answer = await kept.answer()
            assert (answer.status, answer.is_last) == (200, False)
            async with raw(cluster.url) as new:
                await new.send(sent)
                assert (await new.answer()).status == 200
        await kept.send(request(target="/ready"))
        answer = await kept.answer()
        assert answer.status == 503
        assert json.loads(answer.body)["reason"] == "stopping"


async def test_then_answers_are_the_last_of_their_connections_and_streams_end_whole():
    async with running_cluster(server=NOW, decode_engine=SLOW) as cluster:
        async with raw(cluster.url) as streaming, raw(cluster.url) as kept, raw(cluster.url) as idle:
            await kept.send(request())
            assert not (await kept.answer()).is_last
            await streaming.send(chat(stream=True, max_tokens=40))
            await first_content(streaming)
            cluster.runtime.ask_to_stop()
            await takes_nobody(cluster)
            await kept.send(chat(max_tokens=2))
            answer = await kept.answer()
            assert (answer.status, answer.is_last) == (200, True)
            assert await kept.rest() == b""
            said = await streaming.rest()
            assert said.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert await idle.rest() == b""
        await ended(cluster)


async def test_without_anything_in_flight_it_ends_soon():
    async with running_cluster(server=NOW) as cluster, raw(cluster.url) as idle:
        await cluster.chat("Hi")
        cluster.runtime.ask_to_stop()
        assert await idle.rest() == b""
        await ended(cluster)


WAYS = pytest.mark.parametrize("is_hurried", [False, True], ids=["the grace is over", "asked twice"])


def stop(cluster, is_hurried):
    cluster.runtime.ask_to_stop()
    if is_hurried:
        cluster.runtime.ask_to_stop()


@WAYS
async def test_what_is_left_ends_with_an_error_and_the_log_says_so(is_hurried, capsys):
    grace = Server(drain_s=0, shutdown_grace_s=60 if is_hurried else 0.2)
    async with running_cluster(server=grace) as cluster:
        async with raw(cluster.url) as streaming, raw(cluster.url) as waiting, raw(cluster.url) as sending:
            cluster.decode.faults.add(STALL)
            await streaming.send(chat(stream=True))
            await first_content(streaming)
            await waiting.send(chat())
            await until(lambda: cluster.decode.faults.hits() == 2)
            await sending.send(chat()[:-10])
            stop(cluster, is_hurried)
            said = (await streaming.rest()).decode()
            assert said.endswith("0\r\n\r\n"), "the stream's framing is broken off, too"
            error = json.loads(said.split("data: ")[-1].split("\n")[0])["error"]
            assert (error["reason"], error["code"]) == ("stopping", 503)
            assert "[DONE]" not in said
            for client in (waiting, sending):
                answer = await client.answer()
                assert (answer.status, answer.error["reason"], answer.is_last) == (503, "stopping", True)
                assert "retry-after" in answer.headers
                assert await client.rest() == b""
        await ended(cluster)
        await until(lambda: cluster.decode.counts.aborts == 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "ppd_proxy.request:" in line]
    assert len(lines) == 3
    for line in lines:
        assert "status=503" in line
        assert "error='the proxy is stopping'" in line
        assert "client_gone" not in line


DELTAS = {
    "/v1/messages": b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hi"}}\n\n',
    "/v1/responses": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"sequence_number":1,"output_index":0,"content_index":0,"delta":"Hi"}\n\n',
}


@pytest.mark.parametrize("path", DELTAS)
async def test_streams_of_other_dialects_end_with_their_own_error_event(path):
    async def answer(wanted):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(wanted)
        await response.write(DELTAS[path])
        await asyncio.sleep(LIMIT_S)
        return response

    async with scripted_engine(answer, path) as url, running_proxy(server=NOW) as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        async with raw(cluster.url) as client:
            body = json.dumps({"model": "m", "max_tokens": 5, "stream": True, "input": "Hi", "messages": [user("Hi")]})
            await client.send(request("POST", path, ["Content-Type: application/json"], body.encode()))
            async with asyncio.timeout(LIMIT_S):
                await client.reader.readuntil(b"delta")
            stop(cluster, is_hurried=True)
            said = await client.rest()
            assert b"event: error\n" in said
            assert b"the proxy is stopping" in said


@WAYS
async def test_passed_on_requests_are_answered_at_the_end_too(is_hurried):
    reached = asyncio.Event()

    async def answer(_):
        reached.set()
        await asyncio.sleep(LIMIT_S)
        return web.Response()

    grace = Server(drain_s=0, shutdown_grace_s=60 if is_hurried else 0.2)
    async with scripted_engine(answer, "/v1/embeddings") as url, running_proxy(server=grace) as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        async with raw(cluster.url) as client:
            await client.send(request("POST", "/v1/embeddings", ["Content-Type: application/json"], b'{"input":"Hi"}'))
            await reached.wait()
            stop(cluster, is_hurried)
            assert (await client.answer()).status == 503
        await ended(cluster)


async def test_a_client_that_does_not_read_the_end_does_not_hold_it_up(monkeypatch, capsys, caplog):
    """Its connection is cut, and its request ends by itself: nothing is cancelled."""
    monkeypatch.setattr(listening, "LAST_WORDS_S", 0.1)
    piece = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 65536)
    written = []

    async def answer(wanted):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(wanted)
        with suppress(ConnectionError):
            for number in range(2000):
                await response.write(piece)
                written.append(number)
        return response

    async with scripted_engine(answer) as url, running_proxy() as cluster:
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})
        async with raw(cluster.url) as client:
            await client.send(chat(stream=True))
            await until(lambda: len(written) > 100)
            async with asyncio.timeout(LIMIT_S / 2):
                await cluster.runtime.stop()
    assert "status=503" in capsys.readouterr().err
    assert "Traceback" not in caplog.text


async def test_embedders_stop_at_once():
    async with running_cluster() as cluster, raw(cluster.url) as streaming, raw(cluster.url):
        cluster.decode.faults.add(STALL)
        await streaming.send(chat(stream=True))
        await first_content(streaming)
        async with asyncio.timeout(2):
            await cluster.runtime.stop()
        assert b"the proxy is stopping" in await streaming.rest()


async def test_a_process_ends_in_order_at_term_and_not_at_hup():
    """The real command: signals, exit status, and a log without a traceback."""
    config = EngineConfig(role="aggregated", timing=TimingConfig(decode_ms_per_token=20))
    async with running_engine(config) as engine:
        command = [
            sys.executable, "-m", "ppd_proxy.cli.main", "serve", "--host", "127.0.0.1", "--port", "0",
            "--discovery-port", "0", "--aggregated", engine.url, "--drain-s", "0.1", "--shutdown-grace-s", "0.5",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(LIMIT_S):
                said = (await process.stderr.readuntil(b"listening on ")) + await process.stderr.readuntil(b" ")
                url = said.rsplit(b"listening on ", 1)[1].decode().strip()
                process.send_signal(signal.SIGHUP)
                said += await process.stderr.readuntil(b"HUP is ignored")
                async with raw(url) as streaming:
                    engine.faults.add(STALL)
                    await streaming.send(chat(stream=True))
                    await first_content(streaming)
                    process.send_signal(signal.SIGTERM)
                    assert b"the proxy is stopping" in await streaming.rest()
                said += await process.stderr.read()
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert b"Traceback" not in said
    assert b"status=503" in said


async def test_who_ended_a_request_with_a_blank_line_too_many_asked_for_nothing_more():
    async with running_proxy(server=Server(drain_s=0, shutdown_grace_s=0)) as cluster, raw(cluster.url) as client:
        await client.send(request() + b"\r\n")
        assert (await client.answer()).status == 200
        cluster.runtime.ask_to_stop()
        assert await client.rest() == b""
