"""The head of an answer, as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from ppd_wire.headers import Headers

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_PHRASES = MappingProxyType({int(status): status.phrase for status in HTTPStatus})
STATUS_LINES: Mapping[int, bytes] = MappingProxyType(
    {status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(200, 600)}
)
"""Of every status that ends a request; those nobody named have an empty phrase, as engines may send them."""


def answer_head(status: int, headers: Headers, *, is_last: bool) -> list[bytes]:
    """In parts, to be joined with what follows: the fields that say where the body ends, and the empty line. `is_last`:
    no further request is taken from this connection."""
    parts = [STATUS_LINES[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if is_last:
        parts.append(b"connection: close\r\n")
    return parts
