"""One generation request: what a client sent, and what it asks, read once and never changed. Pure values."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ppd_core.conversation.history import Steps
from ppd_core.policy.plan import Demand
from ppd_wire.dialects.dialects import Dialect
from ppd_wire.headers import Headers
from ppd_wire.requests.asked import NOTHING, Asked
from ppd_wire.requests.generation import Generation, Kind
from ppd_wire.requests.opaque import Opaque


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


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`public_id` is 32 hex digits, nobody else's. `generation` is the body of an endpoint that may be split, `opaque`
    that of any other: one of them is None. `steps` are its conversation's. `is_sampled`: the accuracy check wants its
    answer; `is_scored`: and the decode leg can be asked for what that takes. `asked` is what its first attempt asks the
    decode engine for beside the client's wishes, `plainly_asked` what the others do."""

    call: Call
    public_id: str
    demand: Demand
    generation: Generation | None = None
    opaque: Opaque | None = None
    steps: Steps = None
    is_sampled: bool = False
    is_scored: bool = False
    asked: Asked = NOTHING
    plainly_asked: Asked = NOTHING

    @property
    def is_stream(self) -> bool:
        body = self.generation or self.opaque
        return body is not None and body.is_stream
