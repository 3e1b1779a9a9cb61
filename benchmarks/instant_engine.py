#!/usr/bin/env python3
"""An engine that answers at once, so that what is left to measure is the proxy in front of it.

    benchmarks/instant_engine.py --role prefill|decode|baseline [--port 0] [--chunks 64]

Speaks just enough of vLLM: /health, /v1/models, /v1/completions and /v1/chat/completions as JSON or server-sent
events, with NIXL's `kv_transfer_params` from the prefill role; everything is encoded before the first request comes.
Who asks for token ids gets these and logprobs. The baseline role answers prompts of token ids, too, and scores what the
others said as they do. GET /counts tells how many requests each path got, scores as /score. Prints its address and
serves until INT or TERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import httptools
import uvloop

from scored_answers import chat_answer, chat_events, completion_answer, score_of

TEXT: Final = "good day"
PROMPT_TOKENS: Final = 300
USAGE: Final = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": 16,
    "total_tokens": 316,
    "prompt_tokens_details": {"cached_tokens": 240},
}
HELD_KV: Final = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [[1, 2, 3]],
    "remote_engine_id": "instant",
    "remote_request_id": "request",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
    "remote_num_tokens": 300,
    "tp_size": 1,
}
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def json_response(value: object) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def event(data: bytes) -> bytes:
    """One server-sent event as one HTTP chunk."""
    text = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(text), text)


@dataclass(frozen=True, slots=True)
class Script:
    """What the engine sends: one JSON answer, or the pieces of a stream; `scored` where token ids are asked for, and
    `score` where prompt logprobs are, unless that is empty."""

    whole: bytes
    pieces: tuple[bytes, ...]
    scored: Script | None = None
    score: bytes = b""


def write_script(role: str, chunks: int) -> Script:
    """`chunks` events with a choice: the role and the text, empty deltas, the finish reason."""
    shared = {"id": "chatcmpl-instant", "created": 1, "model": "instant"}

    def piece(delta: Mapping[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(json.dumps({**shared, "object": "chat.completion.chunk", "choices": [choice]}).encode())

    message = {"role": "assistant", "content": TEXT}
    answer: dict[str, Any] = {**shared, "object": "chat.completion", "usage": USAGE}
    answer["choices"] = [{"index": 0, "message": message, "text": TEXT, "finish_reason": "stop"}]
    answer["kv_transfer_params"] = HELD_KV if role == "prefill" else None
    middle = [piece({"content": ""})] * (chunks - 2)
    end = event(b"[DONE]") + b"0\r\n\r\n"
    events = [event(json.dumps(each).encode()) for each in chat_events(PROMPT_TOKENS, chunks, text=TEXT)]
    told = chat_answer(PROMPT_TOKENS, chunks, tops=0, text=TEXT)
    told["kv_transfer_params"] = answer["kv_transfer_params"]
    scored = Script(json_response(told), (STREAM_HEAD, *events, end))
    return Script(json_response(answer), (STREAM_HEAD, piece(message), *middle, piece({}, "stop"), end), scored)


class Connection(asyncio.Protocol):
    """One client connection; requests on it are answered in the order they came."""

    def __init__(self, script: Script, counts: Counter[str]) -> None:
        self._script = script
        self._counts = counts
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            assert self._transport is not None
            self._transport.close()

    def on_message_begin(self) -> None:
        self._path = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, script = self._path.decode(), self._script
        if script.score and b'"prompt_logprobs"' in self._body:
            self._counts["/score"] += 1
            self._send(script.score)
            return
        self._counts[path] += 1
        if script.scored is not None and b'"return_token_ids":true' in self._body:
            script = script.scored
        if path == "/counts":
            self._send(json_response(self._counts))
        elif path == "/v1/models":
            self._send(json_response({"object": "list", "data": [{"id": "instant", "object": "model"}]}))
        elif "completions" not in path:
            self._send(json_response({}))
        elif b'"stream":true' in self._body or b'"stream": true' in self._body:
            self._send_next(iter(script.pieces))
        else:
            self._send(script.whole)

    def _send_next(self, pieces: Iterator[bytes]) -> None:
        """One piece per turn of the event loop: each becomes a write of its own, as an engine's tokens do."""
        piece = next(pieces, None)
        if piece is not None:
            self._send(piece)
            asyncio.get_running_loop().call_soon(self._send_next, pieces)

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)


class BaselineConnection(Connection):
    """Answers and scores prompts of token ids, whose lengths are the caller's."""

    def on_message_complete(self) -> None:
        if self._path != b"/v1/completions":
            super().on_message_complete()
            return
        asked = json.loads(self._body)
        is_score = "prompt_logprobs" in asked
        self._counts["/score" if is_score else "/v1/completions"] += 1
        prompt = asked["prompt"]
        self._send(json_response(score_of(prompt) if is_score else completion_answer(prompt, asked["max_tokens"])))


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    script = write_script(options.role, options.chunks)
    counts: Counter[str] = Counter()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    kind = BaselineConnection if options.role == "baseline" else Connection
    server = await loop.create_server(lambda: kind(script, counts), "127.0.0.1", options.port, backlog=4096)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--role", choices=["prefill", "decode", "baseline"], required=True)
    add("--port", type=int, default=0, help="0 (default): any free port")
    add("--chunks", type=int, default=64, help="events of a stream that carry a choice, at least 2 (default 64)")
    options = parser.parse_args()
    if options.chunks < 2:
        parser.error(f"--chunks: {options.chunks} must be at least 2")
    return options


if __name__ == "__main__":
    uvloop.run(serve(parse_arguments()))
    sys.exit(0)
