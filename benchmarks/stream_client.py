#!/usr/bin/env python3
"""Many slow streams through one proxy, read by one process: what came late, and what did not come.

    benchmarks/stream_client.py HOST:PORT --streams 8000 --seconds 60 --open-per-s 500

Opens the streams one after the other, gives the last `OPEN_S` for its first event, then measures for `--seconds`: how
long after the engine sent it (see `stream_engine.py`) each event was here. Prints `opened`, `measured` and `result
JSON`, a line each, so that whoever started it can look at the processes in between, and tell the engine after
`measured` to end all streams. Each is then held against what the engine says that it sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from array import array
from collections import Counter
from typing import Any, Final, cast

import uvloop

from first_token import chat_bodies, request_bytes

MARKS: Final = re.compile(rb"@(\d{6}):(\d{20})@")
BATCH_S: Final = 0.02
OPEN_S: Final = 10.0
END_S: Final = 30.0


class Tally:
    """What all streams together have seen. `delays_us` are those of events that came while measuring, `firsts_us` how
    long each stream took from its request to its first event."""

    def __init__(self) -> None:
        self.is_measuring = False
        self.delays_us = array("I")
        self.firsts_us = array("I")
        self.outcomes: Counter[str] = Counter()
        self.waiting = 0
        self.open = 0
        self.events = 0


class StreamReader(asyncio.Protocol):
    """One stream: asks when connected, counts events, says how it ended."""

    def __init__(self, tally: Tally, request: bytes) -> None:
        self._tally = tally
        self._request = request
        self._seen = 0
        self._asked_ns = 0
        self._was_told_all = False
        self._rest = b""
        self._is_ended = self._has_begun = False
        self._transport: asyncio.Transport | None = None
        tally.waiting += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._asked_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        tally, data, end = self._tally, self._rest + data, 0
        for found in MARKS.finditer(data):
            end = found.end()
            if int(found[1]) != self._seen:
                self._finish("events missing")
                return
            sent_ns = int(found[2])
            self._was_told_all = not sent_ns
            self._seen += 1
            tally.events += 1
            if tally.is_measuring and sent_ns:
                tally.delays_us.append(max(0, now_ns - sent_ns) // 1000)
        if not self._has_begun:
            self._begin(data)
        self._rest = data[end:]
        if b"data: [DONE]" in self._rest:
            self._finish("whole" if self._was_told_all else "events missing")

    def _begin(self, data: bytes) -> None:
        if self._seen:
            self._has_begun = True
            self._tally.waiting -= 1
            self._tally.open += 1
            self._tally.firsts_us.append((time.monotonic_ns() - self._asked_ns) // 1000)
        elif b"\r\n" in data and b" 200 " not in data[:16]:
            self._finish(f"status {data[9:12].decode(errors='replace')}")

    def connection_lost(self, error: Exception | None) -> None:
        self._finish("cut off")

    def _finish(self, outcome: str) -> None:
        if self._is_ended:
            return
        self._is_ended = True
        self._tally.outcomes[outcome] += 1
        if self._has_begun:
            self._tally.open -= 1
        else:
            self._tally.waiting -= 1
        if self._transport is not None:
            self._transport.close()


async def open_all(options: argparse.Namespace, tally: Tally, request: bytes) -> None:
    """At the pace that was asked for, and not sooner."""
    loop = asyncio.get_running_loop()
    host, _, port = options.address.rpartition(":")

    async def open_one() -> None:
        try:
            await loop.create_connection(lambda: StreamReader(tally, request), host, int(port))
        except OSError as error:
            tally.outcomes[f"not connected: {error.strerror}"] += 1

    begun_at, opened = loop.time(), 0
    async with asyncio.TaskGroup() as group:
        while opened < options.streams:
            due = min(options.streams, int((loop.time() - begun_at + BATCH_S) * options.open_per_s))
            for _ in range(due - opened):
                group.create_task(open_one())
            opened = due
            await asyncio.sleep(BATCH_S)


async def until(is_so: Any, limit_s: float) -> None:  # noqa: ANN401
    """Wait until it is so, or the time is over."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + limit_s
    while not is_so() and loop.time() < ends_at:  # noqa: ASYNC110 - thousands of streams would set an event
        await asyncio.sleep(BATCH_S)


def percentile(values: array[int], share: float) -> float:
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))] / 1e3 if ordered else 0.0


async def run(options: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    tally = Tally()
    request = request_bytes(options.address, next(chat_bodies("streams", 1, is_stream=True)))
    begun_at = loop.time()
    await open_all(options, tally, request)
    await until(lambda: not tally.waiting, OPEN_S)
    opening_s = loop.time() - begun_at
    never_open = tally.waiting
    tally.is_measuring = True
    print("opened", flush=True)
    await asyncio.sleep(options.seconds)
    tally.is_measuring = False
    was_open = tally.open
    print("measured", flush=True)
    await until(lambda: sum(tally.outcomes.values()) >= options.streams, END_S)
    tally.outcomes["unfinished"] = options.streams - sum(tally.outcomes.values())
    outcomes = {name: count for name, count in tally.outcomes.items() if count}
    return {
        "streams": options.streams,
        "never_open": never_open,
        "open_at_the_end": was_open,
        "outcomes": outcomes,
        "dropped": options.streams - outcomes.get("whole", 0),
        "opening_s": opening_s,
        "first_p50_ms": percentile(tally.firsts_us, 0.5),
        "first_max_ms": percentile(tally.firsts_us, 1.0),
        "events": tally.events,
        "measured_events": len(tally.delays_us),
        "delay_p50_ms": percentile(tally.delays_us, 0.5),
        "delay_p99_ms": percentile(tally.delays_us, 0.99),
        "delay_max_ms": percentile(tally.delays_us, 1.0),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--open-per-s", type=float, default=500.0)
    return parser.parse_args()


if __name__ == "__main__":
    print("result", json.dumps(uvloop.run(run(parse_arguments()))), flush=True)
    sys.exit(0)
