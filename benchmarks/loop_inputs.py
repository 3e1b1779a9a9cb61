"""What `loop_steps.py` sends to a proxy: inputs that must be refused or cut, and the largest that are accepted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

MB: Final = 1 << 20
LARGE: Final = 23 * MB
"""Just below the default of --max-body-bytes."""


@dataclass(slots=True)
class Engine:
    """Says to every request what the input wants; to /metrics what `page` says."""

    answer: bytes = b""
    page: bytes = b""
    port: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                path = head.split(b" ")[1]
                said = {b"/health": plain(b"{}"), b"/metrics": plain(self.page)}.get(path, self.answer)
                writer.write(said)
                await writer.drain()
        self.writers.discard(writer)
        writer.close()


def plain(body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def said(content: str, **more: object) -> bytes:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "text": content, "finish_reason": "stop", **more}
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    return plain(json.dumps({"id": "a", "object": "x", "choices": [choice], "usage": usage}).encode())


def streamed(*payloads: bytes, piece_bytes: int = 16384) -> bytes:
    body = b"".join(b"data: %b\n\n" % payload for payload in payloads)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + piece_bytes]), body[at : at + piece_bytes])
        for at in range(0, len(body), piece_bytes)
    )


@dataclass(slots=True)
class Bench:
    """One started proxy with its two engines."""

    port: int
    engine: Engine

    async def send(self, *pieces: bytes, reads: bool = True) -> bytes:
        """Send on a connection of its own; the first bytes of what comes back, b"" when it is just closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        got = b""
        try:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    for at in range(0, len(piece), MB):
                        writer.write(piece[at : at + MB])
                        await writer.drain()
            if reads:
                with contextlib.suppress(OSError):
                    got = await reader.read(400)
                    while await reader.read(MB):
                        pass
        finally:
            writer.transport.abort()
        return got

    async def post(self, path: str, body: bytes, close: str = "connection: close\r\n") -> bytes:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{close}content-type: application/json\r\n"
        return await self.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


Input = Callable[[Bench], Awaitable[bytes]]
CHAT, TEXT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"


def content(text: bytes) -> bytes:
    return b'{"model":"m","messages":[{"role":"user","content":%b}]}' % text


def body(path: str, make: Callable[[], bytes]) -> Input:
    async def run(bench: Bench) -> bytes:
        bench.engine.answer = said("Hi")
        return await bench.post(path, make())

    return run


def answered(make: Callable[[], bytes], path: str = CHAT, **fields: object) -> Input:
    async def run(bench: Bench) -> bytes:
        bench.engine.answer = make()
        asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", **fields}
        return await bench.post(path, json.dumps(asked).encode())

    return run


def dumped(**fields: object) -> bytes:
    return json.dumps({"model": "m", **fields}, ensure_ascii=False).encode()


def history(count: int, text: str) -> bytes:
    roles = ("user", "assistant")
    return dumped(messages=[{"role": roles[at % 2], "content": f"{at} {text}"} for at in range(count)])


def agent_history(count: int) -> bytes:
    call = {"id": "call_1", "type": "function", "function": {"name": "run", "arguments": '{"command": ["ls", "-l"]}'}}
    turns: list[dict[str, object]] = [{"role": "user", "content": "Go"}]
    for at in range(count // 2):
        turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        turns.append(
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": f"out {at}" * 40}]}
        )
    return dumped(messages=turns, tools=[{"type": "function", "function": {"name": "run", "parameters": {}}}] * 60)


def images(count: int) -> bytes:
    url = "data:image/png;base64," + "QUJD" * (LARGE // 4 // count - 60)
    part = {"type": "image_url", "image_url": {"url": url}}
    return dumped(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, *[part] * count]}])


def schema(depth: int) -> dict[str, object]:
    inner: dict[str, object] = {"type": "string", "description": "x" * 500}
    for _ in range(depth):
        inner = {"type": "object", "properties": {"a": inner, "b": {"type": "string"}}, "required": ["a"]}
    return {"type": "function", "function": {"name": "f", "parameters": inner}}


def ids(count: int) -> bytes:
    numbers = random.Random(1)
    return dumped(prompt=[numbers.randrange(150_000) for _ in range(count)])


def arguments(text: bytes) -> bytes:
    call = b'{"id":"c","type":"function","function":{"name":"f","arguments":"%b"}}' % text
    return b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[%b]}]}' % call


def logprobs(count: int) -> bytes:
    tops = [{"token": f"t{at}", "logprob": -1.25, "bytes": [104, 105]} for at in range(10)]
    entry = {"token": "hi", "logprob": -0.25, "bytes": [104, 105], "top_logprobs": tops}
    return said("hi" * count, logprobs={"content": [entry] * count})


def chunk(**choice: object) -> bytes:
    return json.dumps({"id": "a", "choices": [{"index": 0, "finish_reason": None, **choice}]}).encode()


def long_stream(events: int) -> bytes:
    end = json.dumps({"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).encode()
    return streamed(*[chunk(delta={"content": " hello"})] * events, end, b"[DONE]") + b"0\r\n\r\n"


def page() -> bytes:
    line = b'vllm:num_requests_running{engine="%d",model_name="m"} 1\n'
    return b"".join(line % at for at in range(9 * MB // 55))


async def scraped(bench: Bench) -> bytes:
    bench.engine.page = page()
    await asyncio.sleep(6)
    return b""


async def unfinished(bench: Bench) -> bytes:
    """Four bodies of which the last byte never comes."""

    async def one() -> None:
        await bench.send(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), 100 * MB), b" " * (99 * MB)
        )

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(6):
            await asyncio.gather(*(one() for _ in range(4)))
    return b""


def unread(connections: int, requests: int, size: int) -> Input:
    """Clients that ask ahead and read nothing."""

    async def run(bench: Bench) -> bytes:
        bench.engine.answer = said("x" * size)
        asked = content(b'"Hi"')
        head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        one = head % (CHAT.encode(), len(asked)) + asked
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(connections):
                _, writer = await asyncio.open_connection("127.0.0.1", bench.port, limit=1024)
                stack.callback(writer.transport.abort)
                writer.write(one * requests)
            await asyncio.sleep(6)
        return b""

    return run


def raw(*pieces: bytes) -> Input:
    return lambda bench: bench.send(*pieces)


INPUTS: Final[dict[str, Input]] = {
    # refused, or cut
    "content of [],[], 48 MB": body(CHAT, lambda: content(b"[" + b"[]," * (16 * MB) + b"[]]")),
    "content of [],[], 23 MB": body(CHAT, lambda: content(b"[" + b"[]," * (LARGE // 3 - 50) + b"[]]")),
    "unknown field of [],[], 23 MB": body(MESSAGES, lambda: b'{"x":[' + b"[]," * (LARGE // 3 - 50) + b"[]]}"),
    "content of [[[[ 23 MB": body(CHAT, lambda: content(b"[" * (LARGE // 2 - 50) + b"]" * (LARGE // 2 - 50))),
    "URL of 20 MB": lambda bench: bench.send(b"GET /" + b"a" * (20 * MB) + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    "header of 40 MB": lambda bench: bench.send(b"GET /health HTTP/1.1\r\nx: " + b"a" * (40 * MB) + b"\r\n\r\n"),
    "SSE event of 10 MB without end": answered(
        lambda: streamed(chunk(delta={"content": "a"}), b"x" * (10 * MB), piece_bytes=2048)[:-6], stream=True
    ),
    "engine head of 38 MB": answered(lambda: b"HTTP/1.1 200 OK\r\nx: " + b"a" * (38 * MB) + b"\r\n\r\n"),
    "/metrics page of 9 MB": scraped,
    "4 unfinished bodies of 100 MB": unfinished,
    "5 clients that do not read 20 MB": unread(5, 1, 20 * MB),
    "300 requests ahead, 1 MB each": unread(1, 300, MB),
    # accepted
    "chat, one text of 23 MB": body(CHAT, lambda: content(b'"' + b"hello world " * (LARGE // 12 - 9) + b'"')),
    "chat, text of line ends": body(CHAT, lambda: content(b'"' + b"\\n" * (LARGE // 2 - 50) + b'"')),
    "chat, text of \\u escapes": body(CHAT, lambda: content(b'"' + b"\\u4e2d" * (LARGE // 6 - 20) + b'"')),
    "chat, Chinese": body(CHAT, lambda: content(('"' + "中" * (LARGE // 3 - 30) + '"').encode())),
    "chat, text with an emoji": body(CHAT, lambda: content(('"😀' + "a" * (LARGE - 100) + '"').encode())),
    "chat, one image": body(CHAT, lambda: images(1)),
    "chat, ten images": body(CHAT, lambda: images(10)),
    "chat, 100,000 messages": body(CHAT, lambda: history(100_000, "hello")),
    "chat, 20,000 messages of 1 KB": body(CHAT, lambda: history(20_000, "hello there" * 90)),
    "chat, agent of 10,000 messages": body(CHAT, lambda: agent_history(10_000)),
    "chat, deep tools 5 MB": body(
        CHAT, lambda: dumped(messages=[{"role": "user", "content": "Hi"}], tools=[schema(40)] * 500)
    ),
    "chat, documents 22 MB": body(
        CHAT, lambda: dumped(messages=[{"role": "user", "content": "Hi"}], documents=[{"text": "x" * 3000}] * 7_500)
    ),
    "chat, JSON in arguments 23 MB": body(CHAT, lambda: arguments(b"[" + b"[]," * (LARGE // 3 - 90) + b"[]]")),
    "chat, 300,000 containers": body(CHAT, lambda: content(b"[" + b"[]," * 270_000 + b"[]]")),
    "completion, 1,000,000 ids": body(TEXT, lambda: ids(1_000_000)),
    "completion, text of 23 MB": body(TEXT, lambda: dumped(prompt="hello world " * (LARGE // 12 - 9))),
    "completion, 200,000 prompts": body(TEXT, lambda: dumped(prompt=["hello"] * 200_000)),
    "responses, 23 MB": body(RESPONSES, lambda: dumped(input="x" * (LARGE - 99))),
    "messages, 23 MB of \\u": body(MESSAGES, lambda: content(b'"' + b"\\u4e2d" * (LARGE // 6 - 20) + b'"')),
    "tokenize, 23 MB": body("/tokenize", lambda: dumped(prompt="x" * (LARGE - 99))),
    # answers
    "answer of 20 MB": answered(lambda: said("hello world " * (20 * MB // 12))),
    "answer of 20 MB of logprobs": answered(lambda: logprobs(30_000)),
    "answer of 60 MB": answered(lambda: said("hello world " * (60 * MB // 12))),
    "stream of 8 MB": answered(lambda: long_stream(80_000), stream=True),
    "stream of 30 MB": answered(lambda: long_stream(300_000), stream=True),
}
