#!/usr/bin/env python3
"""A decode engine whose streams are slow: an event every `1 / --rate` seconds, each with the time it was sent at.

    benchmarks/stream_engine.py --rate 1 [--port 0]

An event's text is `@NUMBER:NANOSECONDS@`, its place in the stream and the monotonic clock, which every process of a
machine reads the same. GET /finish ends all streams, each when its next event is due, with one more that has 0 for the
clock: its number is how many there were. GET /late tells by how many
milliseconds the engine itself was behind since it was last asked (the worst tick): what is late here is not the
proxy's doing. Anything but a stream is answered as `instant_engine.py` does. Serves until INT or TERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import uvloop

from instant_engine import STREAM_HEAD, Connection, Script, event, json_response, write_script

TICK_S: Final = 0.005
MARK: Final = "@{:06d}:{:020d}@"
"""Always as long, so that an event is two constant pieces and one formatted one."""


def chunk_halves() -> tuple[bytes, bytes]:
    """What stands before and behind an event's mark, the HTTP chunk's head included."""
    choice = {"index": 0, "delta": {"content": MARK.format(0, 0)}, "logprobs": None, "finish_reason": None}
    shared = {"id": "chatcmpl-instant", "object": "chat.completion.chunk", "created": 1, "model": "instant"}
    before, _, after = event(json.dumps({**shared, "choices": [choice]}).encode()).partition(MARK.format(0, 0).encode())
    return before, after


BEFORE, AFTER = chunk_halves()
END: Final = event(b"[DONE]") + b"0\r\n\r\n"


class Stream:
    """One answer under way."""

    __slots__ = ("_is_gone", "_number", "_send")

    def __init__(self, send: Callable[[bytes], None], is_gone: Callable[[], bool]) -> None:
        self._send = send
        self._is_gone = is_gone
        self._number = 0

    def step(self, *, is_last: bool) -> bool:
        """Send the next event; whether there are more."""
        if self._is_gone():
            return False
        clock_ns = 0 if is_last else time.monotonic_ns()
        self._send(BEFORE + b"@%06d:%020d@" % (self._number, clock_ns) + AFTER + (END if is_last else b""))
        self._number += 1
        return not is_last


class Wheel:
    """Streams by the tick at which their next event is due: one timer for all of them."""

    def __init__(self, period_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._slots: list[list[Stream]] = [[] for _ in range(max(1, round(period_s / TICK_S)))]
        self._tick_s = period_s / len(self._slots)
        self._loop = loop
        self._place = 0
        self._due_at = loop.time()
        self.late_s = 0.0
        self.is_over = False

    def add(self, stream: Stream) -> None:
        """Its first event now, the next one a period later."""
        if stream.step(is_last=self.is_over):
            self._slots[self._place].append(stream)

    def turn(self) -> None:
        now = self._loop.time()
        self.late_s = max(self.late_s, now - self._due_at)
        while self._due_at <= now:
            self._place = (self._place + 1) % len(self._slots)
            self._due_at += self._tick_s
            due = self._slots[self._place]
            self._slots[self._place] = [stream for stream in due if stream.step(is_last=self.is_over)]
        self._loop.call_at(self._due_at, self.turn)


class SlowConnection(Connection):
    """Streams go on the wheel."""

    def __init__(self, script: Script, counts: Counter[str], wheel: Wheel) -> None:
        super().__init__(script, counts)
        self._wheel = wheel

    def on_message_complete(self) -> None:
        if self._path == b"/late":
            self._send(json_response({"late_ms": self._wheel.late_s * 1e3}))
            self._wheel.late_s = 0.0
            return
        if self._path == b"/finish":
            self._wheel.is_over = True
            self._send(json_response({}))
            return
        if b'"stream":true' not in self._body and b'"stream": true' not in self._body:
            super().on_message_complete()
            return
        assert self._transport is not None
        self._counts[self._path.decode()] += 1
        self._send(STREAM_HEAD)
        self._wheel.add(Stream(self._send, self._transport.is_closing))


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    script = write_script("decode", 2)
    counts: Counter[str] = Counter()
    wheel = Wheel(1 / options.rate, loop)
    wheel.turn()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(
        lambda: SlowConnection(script, counts, wheel), "127.0.0.1", options.port, backlog=4096
    )
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, required=True, help="events a second, at most 200")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    options = parser.parse_args()
    if not 0 < options.rate <= 1 / TICK_S:
        parser.error(f"--rate: {options.rate} is not above 0 and at most {1 / TICK_S:g}")
    return options


if __name__ == "__main__":
    uvloop.run(serve(parse_arguments()))
    sys.exit(0)
