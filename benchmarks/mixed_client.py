#!/usr/bin/env python3
"""A long mixed load through a proxy: JSON, SSE, requests left midway, and requests whose engine fails.

    benchmarks/mixed_client.py HOST:PORT --requests 2000000 [--connections 32] [--seed 0]

Each connection plays chats of five turns one after the other; what becomes of a turn is drawn by `KINDS`. Prints
`progress N` every `PROGRESS_S` and at the end `result JSON`: of every kind how many ended how. Talks to engines such
as `unruly_engine.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from typing import Any, Final, NamedTuple, cast

import httptools
import uvloop

from first_token import chat_bodies, request_bytes
from unruly_engine import SLOW_S

TURNS: Final = 5
PROGRESS_S: Final = 1.0
LIMIT_S: Final = 60.0
LEFT_AFTER_S: Final = SLOW_S / 4


class Kind(NamedTuple):
    """What becomes of a request: its mark for the engine, and whether the client leaves it. `share` is its weight."""

    name: str
    share: int
    mark: str = ""
    is_stream: bool = False
    is_left: bool = False


KINDS: Final = (
    Kind("JSON", 40),
    Kind("SSE", 28, is_stream=True),
    Kind("JSON, cancelled", 6, "%slow%", is_left=True),
    Kind("SSE, cancelled", 10, "%slow%", is_stream=True, is_left=True),
    Kind("JSON, engine says 400", 3, "%400%"),
    Kind("SSE, engine says 500", 3, "%500%", is_stream=True),
    Kind("JSON, engine cuts", 3, "%cut%"),
    Kind("SSE, engine cuts", 3, "%cut%", is_stream=True),
    Kind("JSON, prefill says 500", 2, "%500%prefill%"),
    Kind("JSON, prefill cuts", 2, "%cut%prefill%"),
)


class ClientConnection(asyncio.Protocol):
    """One connection, one request at a time; the answer is a future of how it ended."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._end: asyncio.Future[str] | None = None
        self._first: asyncio.Future[None] | None = None
        self._has_error = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> tuple[asyncio.Future[str], asyncio.Future[None]]:
        """How it ends, and when the first byte of a body is here."""
        loop = asyncio.get_running_loop()
        self._end, self._first = loop.create_future(), loop.create_future()
        self._parser, self._has_error = httptools.HttpResponseParser(self), False
        assert self._transport is not None
        self._transport.write(request)
        return self._end, self._first

    def leave(self, *, is_abrupt: bool) -> None:
        """Go away, with a reset or in good order."""
        assert self._transport is not None
        if is_abrupt:
            self._transport.abort()
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._finish("no HTTP")

    def on_body(self, body: bytes) -> None:
        self._has_error = self._has_error or b'"error"' in body
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        self._finish(f"{status} with an error" if status == 200 and self._has_error else str(status))
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._finish("cut off")

    def _finish(self, outcome: str) -> None:
        for future in (self._end, self._first):
            if future is not None and not future.done():
                if future is self._end:
                    self._end.set_result(outcome)
                else:
                    future.cancel()


class Load:
    """What all connections share: how many requests are left, and what became of the others."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._address = options.address
        self._requests = options.requests
        self._random = random.Random(options.seed)
        self._weights = [kind.share for kind in KINDS]
        self.begun = 0
        self.ended = 0
        self.outcomes: dict[str, Counter[str]] = {kind.name: Counter() for kind in KINDS}

    async def worker(self, number: int) -> None:
        """Chats, one after the other, on a connection of its own."""
        connection = ClientConnection()
        chat = 0
        while self.begun < self._requests:
            chat += 1
            for place, body in enumerate(chat_bodies(f"{number}/{chat}", TURNS, is_stream=False)):
                if self.begun >= self._requests:
                    break
                self.begun += 1
                kind = self._random.choices(KINDS, self._weights)[0]
                try:
                    if not connection.is_open:
                        connection = await self._connect()
                    outcome = await self._play(connection, kind, body, place)
                except OSError as error:
                    outcome = f"not connected: {error.strerror}"
                self.outcomes[kind.name][outcome] += 1
                self.ended += 1
        if connection.is_open:
            connection.leave(is_abrupt=False)

    async def _connect(self) -> ClientConnection:
        host, _, port = self._address.rpartition(":")
        made = await asyncio.get_running_loop().create_connection(ClientConnection, host, int(port))
        return made[1]

    async def _play(self, connection: ClientConnection, kind: Kind, body: bytes, turn: int) -> str:
        """One request; how it ended."""
        head = f'{{"user": "{kind.mark}", "stream": {"true" if kind.is_stream else "false"}, '.encode()
        end, first = connection.ask(request_bytes(self._address, head + body[1:]))
        try:
            async with asyncio.timeout(LIMIT_S):
                if not kind.is_left:
                    return await end
                if kind.is_stream:
                    await asyncio.wait([first])
                else:
                    await asyncio.sleep(LEFT_AFTER_S)
        except TimeoutError:
            connection.leave(is_abrupt=True)
            return "no answer"
        if end.done():
            return end.result()
        connection.leave(is_abrupt=bool(turn % 2))
        return "left"


async def run(options: argparse.Namespace) -> dict[str, Any]:
    load = Load(options)

    async def tell() -> None:
        while load.ended < options.requests:
            print(f"progress {load.ended}", flush=True)
            await asyncio.sleep(PROGRESS_S)

    async with asyncio.TaskGroup() as group:
        for number in range(options.connections):
            group.create_task(load.worker(number))
        group.create_task(tell())
    return {"requests": load.ended, "outcomes": {name: dict(each) for name, each in load.outcomes.items()}}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    print("result", json.dumps(uvloop.run(run(parse_arguments()))), flush=True)
    sys.exit(0)
