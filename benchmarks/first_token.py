#!/usr/bin/env python3
"""Time to first token at one connection, through a proxy, through a bare relay and of the engine itself.

`overhead.py` measures with it. As a program it is the relay, which only copies bytes, so what it adds is the kernel's
two more loopback hops and two wake-ups:

    benchmarks/first_token.py --relay HOST:PORT
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from chat_client import RequestFailed

TIMEOUT_S: Final = 30.0
READ_BYTES: Final = 262_144
SYSTEM: Final = "Answer in few words and only what you are sure of. " * 20
QUESTION: Final = "Say a little more about the rivers of the north. " * 4
ANSWER: Final = "good day"  # what instant_engine.py says


def chat_bodies(name: str, turns: int, *, is_stream: bool) -> Iterator[bytes]:
    """The request bodies of one chat, about 2 kB each; they share nothing with chats of another name but the start."""
    messages = [{"role": "system", "content": SYSTEM}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"{name}/{turn} {QUESTION}"})
        body = {"model": "instant", "max_tokens": 16, "messages": messages}
        yield json.dumps({**body, "stream": True} if is_stream else body).encode()
        messages.append({"role": "assistant", "content": ANSWER})


def request_bytes(host: str, body: bytes) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Caller:
    """One kept connection to `host:port`; blocking, so that nothing of ours stands between the kernel and the clock."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        self._socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def first_token_s(self, body: bytes) -> float:
        """Seconds until the first event of the stream was here; reads on to its end. RequestFailed where it fails."""
        begun = time.perf_counter()
        self._socket.sendall(request_bytes(self._address, body))
        answer, first_s = b"", 0.0
        while not answer.endswith(b"0\r\n\r\n"):
            piece = self._socket.recv(READ_BYTES)
            if not piece:
                raise RequestFailed(f"{self._address} ended a stream early: {answer[:200]!r}")
            answer += piece
            if not first_s and b"data: " in answer:
                first_s = time.perf_counter() - begun
        if b" 200 " not in answer[:20]:
            raise RequestFailed(f"{self._address} answered {answer[:200]!r}")
        return first_s


def first_tokens_ms(addresses: Mapping[str, str], chats: int, turns: int) -> dict[str, list[float]]:
    """Milliseconds to the first token of every turn, by name of the address; the addresses take turns, chat by chat,
    so that whatever else the machine does meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in addresses}
    run = time.time_ns()
    with ExitStack() as stack:
        callers = {name: stack.enter_context(Caller(address)) for name, address in addresses.items()}
        for chat in range(-1, chats):  # the first is to warm up
            for name, caller in callers.items():
                times = [caller.first_token_s(body) for body in chat_bodies(f"{run}/{chat}", turns, is_stream=True)]
                if chat >= 0:
                    found[name] += [1e3 * each for each in times]
    return found


def relay(upstream: str) -> None:
    """Copies bytes between each client and a connection of its own to `upstream`, until it is ended."""
    host, _, port = upstream.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    others: dict[int, tuple[socket.socket, socket.socket]] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                for one, other in ((client, server), (server, client)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    others[one.fileno()] = (one, other)
                    poll.register(one, select.EPOLLIN)
            elif descriptor in others:
                one, other = others[descriptor]
                if data := one.recv(READ_BYTES):
                    other.sendall(data)
                    continue
                for each in (one, other):
                    del others[each.fileno()]
                    poll.unregister(each)
                    each.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", metavar="HOST:PORT", required=True, help="where to copy to")
    relay(parser.parse_args(arguments).relay)
    return 0


if __name__ == "__main__":
    sys.exit(main())
