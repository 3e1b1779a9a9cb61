"""A client that says exactly the bytes a test wants, and reads answers off the wire; knows no HTTP library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.cluster import CHAT, LIMIT_S, user


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. `headers` have lower-case names; `is_whole` says that its end was seen."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool = True

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error

    @property
    def is_last(self) -> bool:
        return self.headers.get("connection") == "close"


class Raw:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a segment of its own, as far as one end can see to that."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)

    async def answer(self) -> Answer:
        """The next answer, read to its end."""
        async with asyncio.timeout(LIMIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            pairs = [line.split(": ", 1) for line in lines]
            headers = {name.lower(): value for name, value in pairs}
            assert len(headers) == len(pairs), f"a header came twice: {head!r}"
            status = int(first.split(" ")[1])
            if headers.get("transfer-encoding") != "chunked":
                return Answer(
                    status=status, headers=headers, body=await self.reader.readexactly(int(headers["content-length"]))
                )
            return Answer(status=status, headers=headers, body=await self._chunks())

    async def _chunks(self) -> bytes:
        parts = []
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            part = await self.reader.readexactly(size + 2)
            assert part[-2:] == b"\r\n"
            if not size:
                return b"".join(parts)
            parts.append(part[:-2])

    async def rest(self) -> bytes:
        """What comes until the proxy closes; a reset counts as a close."""
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionError):
                return await self.reader.read()
        return b""


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Raw]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request(method: str = "GET", target: str = "/health", headers: Iterable[str] = (), body: bytes = b"") -> bytes:
    """A request as a client would write it; `headers` stand behind the usual ones."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def chat(content: Any = "Hi", headers: Iterable[str] = (), **fields: Any) -> bytes:
    body = json.dumps({"messages": [user(content)], "max_tokens": 5, "temperature": 0, **fields}).encode()
    return request("POST", CHAT, ["Content-Type: application/json", *headers], body)
