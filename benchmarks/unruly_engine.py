#!/usr/bin/env python3
"""An engine that fails as it is told to: what `endurance.py` puts behind the proxy.

    benchmarks/unruly_engine.py --role prefill|decode [--port 0] [--chunks 16]

A mark in the request says what becomes of it; without one it is answered as `instant_engine.py` does. `%400%`, `%500%`:
that status. `%cut%`: the connection ends before an answer, of a stream amid it. `%slow%`: the answer, of a stream its
second half, comes `SLOW_S` later, so that a client can leave before. `%prefill%` with one of them: the prefill engine
does it, else the decode engine. Serves until INT or TERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Final

import uvloop

from instant_engine import Connection, Script, write_script

SLOW_S: Final = 0.05
MARK: Final = re.compile(rb"%(400|500|cut|slow)%(prefill%)?")


def failure(status: int, reason: str) -> bytes:
    """An error as vLLM words it."""
    body = json.dumps({"error": {"message": "told to fail", "type": reason, "code": status}}).encode()
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


REFUSALS: Final = ((b"400", failure(400, "Bad Request")), (b"500", failure(500, "Internal Server Error")))


class UnrulyConnection(Connection):
    """Does what the mark says, where it is meant."""

    def __init__(self, script: Script, counts: Counter[str], role: str) -> None:
        super().__init__(script, counts)
        self._role = role
        self._refusals = dict(REFUSALS)

    def on_message_complete(self) -> None:
        found = MARK.search(self._body)
        if found is None or (found[2] is not None) != (self._role == "prefill"):
            super().on_message_complete()
            return
        self._counts[self._path.decode()] += 1
        word = found[1]
        if word in self._refusals:
            self._send(self._refusals[word])
        elif b'"stream":true' in self._body or b'"stream": true' in self._body:
            half = len(self._script.pieces) // 2
            self._send(b"".join(self._script.pieces[:half]))
            rest = b"".join(self._script.pieces[half:])
            self._later(self._close if word == b"cut" else lambda: self._send(rest))
        elif word == b"cut":
            self._close()
        else:
            self._later(lambda: self._send(self._script.whole))

    def _later(self, step: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(SLOW_S, step)

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.close()


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    script = write_script(options.role, options.chunks)
    counts: Counter[str] = Counter()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(
        lambda: UnrulyConnection(script, counts, options.role), "127.0.0.1", options.port, backlog=4096
    )
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=["prefill", "decode"], required=True)
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--chunks", type=int, default=16, help="events of a stream (default 16)")
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(serve(parse_arguments()))
    sys.exit(0)
