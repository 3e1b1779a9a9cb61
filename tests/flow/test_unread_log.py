"""The real process with a stderr that nobody reads: it serves, counts what it drops, and ends when it is told to."""

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from tests.support.cluster import LIMIT_S, samples_of

DROPPED = "ppd_log_lines_dropped_total"
LONG_LINED = {"messages": [], "model": "m" * 120}
"""A request with no route, and as long a line as a client can make: that many fewer fill what waits to be read."""
LISTENING = "0A"
"""In /proc/net/tcp."""


@pytest.fixture
async def proxy():
    """Its URL, the end of its stderr that is to be read, and the process."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "ppd_proxy.cli.main", "serve", "--host", "127.0.0.1"]
    command += ["--port", "0", "--discovery-port", "0", "--drain-s", "0"]
    process = subprocess.Popen(command, stderr=writing)  # noqa: ASYNC220
    os.close(writing)
    try:
        said = ""
        while "listening on" not in said:
            piece = await asyncio.to_thread(os.read, reading, 65536)
            assert piece, said
            said += piece.decode()
        yield re.search(r"listening on (\S+)", said)[1], reading, process
    finally:
        process.kill()
        process.wait()
        os.close(reading)


async def dropped(http, url):
    async with http.get(url + "/metrics") as answer:
        return samples_of(await answer.text())[DROPPED]


async def write_lines(http, url):
    """Requests that are refused and logged, until lines are dropped."""

    async def refused():
        for _ in range(100):
            async with http.post(url + "/v1/chat/completions", json=LONG_LINED) as answer:
                assert answer.status == 503
                await answer.read()

    while await dropped(http, url) == 0:
        await asyncio.gather(*(refused() for _ in range(8)))


async def test_a_stderr_that_nobody_reads_stops_nothing(proxy):
    url, reading, process = proxy
    async with asyncio.timeout(2 * LIMIT_S), aiohttp.ClientSession() as http:
        await write_lines(http, url)
        async with http.get(url + "/health") as answer:
            assert answer.status == 200
        said = b""
        while b"dropped" not in said:
            said += await asyncio.to_thread(os.read, reading, 65536)
        told = re.search(r"WARNING ppd_proxy.log: (\d+) lines were dropped", said.decode())
        assert 0 < int(told[1]) <= await dropped(http, url)
        process.send_signal(signal.SIGTERM)
        rest = await asyncio.to_thread(read_all, reading)
        assert "Traceback" not in rest
        assert process.wait() == 0


async def test_a_stderr_that_nobody_reads_does_not_hold_up_the_end(proxy):
    url, _, process = proxy
    async with asyncio.timeout(2 * LIMIT_S), aiohttp.ClientSession() as http:
        await write_lines(http, url)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, LIMIT_S) == 0


def read_all(descriptor):
    data = b""
    while piece := os.read(descriptor, 65536):
        data += piece
    return data.decode()


def listening_port(process_id):
    """The TCP port that a process listens on, once it does; for one that cannot say it."""
    ends_at = time.monotonic() + LIMIT_S
    while time.monotonic() < ends_at:
        with suppress(FileNotFoundError):  # descriptors come and go
            sockets = {os.readlink(each) for each in Path(f"/proc/{process_id}/fd").iterdir()}
            for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == LISTENING and f"socket:[{fields[9]}]" in sockets:
                    return int(fields[1].partition(":")[2], 16)
        time.sleep(0.02)
    raise TimeoutError(process_id)


async def test_a_stderr_that_is_closed_is_no_end():
    """Then Python has no stderr, and its number may be a client's connection."""
    command = f"exec {sys.executable} -m ppd_proxy.cli.main serve --host 127.0.0.1 --port 0 --discovery-port 0"
    command += " --drain-s 0 2>&-"
    process = subprocess.Popen(["sh", "-c", command])  # noqa: ASYNC220
    try:
        port = await asyncio.to_thread(listening_port, process.pid)
        async with asyncio.timeout(LIMIT_S), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for _ in range(50):
                async with http.post("/v1/chat/completions", json={"messages": []}) as answer:
                    assert answer.status == 503
                    assert (await answer.json())["error"]["code"] == 503
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
