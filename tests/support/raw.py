"""One request to the proxy as bytes, for what no HTTP client would send."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.cluster import LIMIT_S, Reply


async def ask_raw(
    url: str, method: bytes, target: bytes, body: Any = None, *, headers: tuple[bytes, ...] | None = None
) -> Reply:
    """`headers` are whole lines in place of `Host` and `Content-Type`; the connection is closed after the answer."""
    authority = url.removeprefix("http://").encode()
    host, _, port = authority.decode().rpartition(":")
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    if headers is None:
        headers = (b"host: " + authority, b"content-type: application/json")
    lines = [b"%b %b HTTP/1.1" % (method, target), *headers, b"connection: close", b"content-length: %d" % len(data)]
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(b"\r\n".join([*lines, b"", data]))
    async with asyncio.timeout(LIMIT_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        rest = await reader.read()
    writer.close()
    fields = [line.partition(":") for line in head[1:] if line]
    return Reply(
        status=int(head[0].split(" ")[1]),
        headers={name.lower(): value.strip() for name, _, value in fields},
        body=rest,
    )
