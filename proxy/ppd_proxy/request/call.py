"""One generation request as it arrived. Pure values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ppd_wire.dialects.dialects import Dialect
from ppd_wire.headers import Headers
from ppd_wire.requests.generation import Kind


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request says before its body; requests whose heads differ in their length alone share one.

    `path` is the plain path with its query, `endpoint` without it; `named` are the headers by name; `client_key`
    separates clients: their key or authorization. `forwarded` are the lines that legs carry of the headers, by whether
    the engine is trusted, once they were made."""

    path: bytes
    endpoint: bytes
    dialect: Dialect
    headers: Headers
    named: Mapping[bytes, bytes]
    client_key: str
    forwarded: dict[bool, bytes] = msgspec.field(default_factory=dict)

    @property
    def kind(self) -> Kind | None:
        """None for endpoints that are never split."""
        return self.dialect if self.dialect == "chat" or self.dialect == "completion" else None


class Call(msgspec.Struct, frozen=True, gc=False):
    """`received_at` is when its head was here, on the loop's clock."""

    envelope: Envelope
    body: bytes
    received_at: float
