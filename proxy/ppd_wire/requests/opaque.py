"""Requests of endpoints that the proxy does not interpret: whole bodies, looked at no further than their members.

Owns what of such a body reaches an engine. No IO.
"""

from __future__ import annotations

import msgspec

from ppd_wire.requests.generation import REQUEST_ID, Fields, add_salt, decode_fields, flag, take_out

_encode = msgspec.json.Encoder().encode


class Opaque(msgspec.Struct, frozen=True):
    """`body` and its members are without what is the proxy's alone."""

    body: bytes
    fields: Fields
    is_stream: bool


def parse_opaque(body: bytes, stripped: frozenset[str] = frozenset()) -> Opaque:
    """Raises BadRequest for what is no JSON object."""
    fields = decode_fields(body)
    return opaque(body, fields, is_rewritten=take_out(fields, stripped))


def opaque(body: bytes, fields: Fields, *, is_rewritten: bool) -> Opaque:
    """What `parse_opaque` gives."""
    return Opaque(body=_encode(fields) if is_rewritten else body, fields=fields, is_stream=flag(fields, "stream"))


def opaque_body(request: Opaque, *, salt: str | None, request_id: str | None) -> bytes:
    """The body of one leg.

    vLLM 0.32 takes `cache_salt` on all four generation endpoints, on `/v1/messages` since vllm#49498; engines before
    that ignore it there. `request_id`: where the body's is the engine's id of the request and of its answer, whatever
    the header says (`/v1/responses`).
    """
    if salt is None and request_id is None:
        return request.body
    fields = dict(request.fields)
    if salt is not None:
        add_salt(fields, salt)
    if request_id is not None:
        fields[REQUEST_ID] = msgspec.Raw(_encode(request_id))
    return _encode(fields)
