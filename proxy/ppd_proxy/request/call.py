"""One generation request as it arrived. A pure value."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ppd_wire.dialects.dialects import Dialect
from ppd_wire.headers import Headers
from ppd_wire.requests.generation import Kind


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`path` is the plain path with its query; `named` are the headers by name; `client_key` separates clients: their
    key or authorization. `forwarded` are the lines that legs carry of the headers, by whether the engine is trusted,
    once they were made."""

    path: bytes
    dialect: Dialect
    body: bytes
    headers: Headers
    named: Mapping[bytes, bytes]
    client_key: str
    received_at: float
    forwarded: dict[bool, bytes] = msgspec.field(default_factory=dict)

    @property
    def kind(self) -> Kind | None:
        """None for endpoints that are never split."""
        return self.dialect if self.dialect == "chat" or self.dialect == "completion" else None

    @property
    def endpoint(self) -> bytes:
        """The path without its query."""
        return self.path.partition(b"?")[0]
