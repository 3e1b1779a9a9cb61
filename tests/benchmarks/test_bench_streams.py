"""streams.py, small: a few streams for a second, and what its client makes of streams that are not whole."""

import asyncio
import json

import pytest

import stream_client
from stream_engine import AFTER, BEFORE, END, MARK, Wheel
from streams import Load, holds, limit_of, parse_load

pytestmark = pytest.mark.timeout(240)


def test_a_few_streams_are_whole_and_figures_are_told_of_each_process(run_script, tmp_path):
    done = run_script(
        "benchmarks/streams.py", "--load", "20@5", "--load", "10@20", "--seconds", 1, "--limit-ms", 60_000,
        "--output", tmp_path / "raw.json", "--plot", tmp_path / "figure.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [each["load"] for each in told["loads"]] == ["20@5", "10@20"]
    for each in told["loads"]:
        assert (each["dropped"], each["outcomes"]) == (0, {"whole": each["streams"]})
        assert each["open_at_the_end"] == each["streams"]
        assert set(each["cores"]) == {"proxy", "engine", "client"}
        assert each["measured_events"] > 0
    assert "descriptors a process" in done.stdout
    assert json.loads((tmp_path / "raw.json").read_text()) == told
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["8000", "0@1", "10@0", "10@201", "a@b"])
def test_what_is_no_load_is_refused(run_script, text):
    done = run_script("benchmarks/streams.py", "--load", text)
    assert done.returncode == 2
    assert "STREAMS@EVENTS" in done.stderr


def test_a_load_is_written_as_it_is_read():
    assert (parse_load("8000@0.5"), str(Load(8000, 0.5))) == (Load(8000, 0.5), "8000@0.5")


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def marked(number, clock_ns=1):
    return BEFORE + MARK.format(number, clock_ns).encode() + AFTER


@pytest.mark.parametrize(
    ("received", "outcome"),
    [
        (HEAD + marked(0) + marked(1) + marked(2, 0) + END, "whole"),
        (HEAD + marked(0) + marked(1) + END, "events missing"),  # the engine never said that this was all
        (HEAD + marked(0) + marked(2) + marked(3, 0) + END, "events missing"),
        (HEAD + marked(0), "cut off"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
    ],
)
@pytest.mark.parametrize("at_once", [1, 7, 10_000], ids=lambda size: f"{size} bytes a read")
async def test_a_stream_is_whole_only_with_every_event_in_order(received, outcome, at_once):
    tally = stream_client.Tally()

    async def serve(reader, writer):
        await reader.readexactly(3)
        for place in range(0, len(received), at_once):
            writer.write(received[place : place + at_once])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: stream_client.StreamReader(tally, b"ask"), "127.0.0.1", port)
        await stream_client.until(lambda: tally.outcomes, 10.0)
    assert tally.outcomes == {outcome: 1}
    assert (tally.open, tally.waiting) == (0, 0)


async def test_streams_on_the_wheel_end_together_when_it_is_over():
    sent = []

    class Kept:
        def step(self, *, is_last):
            sent.append(is_last)
            return not is_last

    wheel = Wheel(0.005, asyncio.get_running_loop())
    wheel.add(Kept())
    wheel.turn()
    await stream_client.until(lambda: len(sent) > 2, 10.0)
    wheel.is_over = True
    await stream_client.until(lambda: sent[-1], 10.0)
    assert sent[0] is False
    assert sent[-1] is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cores": {"proxy": 0.95, "engine": 0.2, "client": 0.1}}, "the proxy"),
        ({"machine_busy": 0.97}, "all busy"),
        ({"outcomes": {"not connected: Too many open files": 3}}, "open files"),
        ({"never_open": 7}, "7 streams"),
        ({}, "nobody"),
    ],
)
def test_who_was_the_limit_is_told(change, words):
    idle = {"machine_busy": 0.3, "cores": {"proxy": 0.2, "engine": 0.1}, "others_cores": 0.1, "outcomes": {"whole": 3}}
    assert words in limit_of({**idle, "never_open": 0, **change})


def test_a_load_holds_without_a_drop_and_below_the_limit():
    fine = {"dropped": 0, "never_open": 0, "delay_p99_ms": 99.0}
    assert holds(fine, 100)
    assert not any(holds(fine | change, 100) for change in ({"dropped": 1}, {"never_open": 1}, {"delay_p99_ms": 100.0}))
