"""The model that a request names, for the log: raw, because most lines are never read."""

from __future__ import annotations

import msgspec

from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.generation import Generation

MAX_READ_BYTES = 1024 * 1024
"""Larger bodies that nobody else reads are not read for a name."""
MAX_NAME_BYTES = 65536


class _Named(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_named = msgspec.json.Decoder(_Named)


def named_model(body: bytes, generation: Generation | None = None) -> bytes | None:
    """The JSON value of `model`, whatever it is, or its first MAX_NAME_BYTES; None where it is absent or the body
    cannot be read. `generation` is the body's view where there is one."""
    raw: msgspec.Raw | msgspec.UnsetType
    if generation is not None:
        raw = generation.fields.get("model", msgspec.UNSET)
    elif len(body) > MAX_READ_BYTES:
        return None
    else:
        try:
            raw = _named.decode(body).model
        except BROKEN:
            return None
    if isinstance(raw, msgspec.UnsetType):
        return None
    return bytes(raw) if len(body) <= MAX_NAME_BYTES else bytes(memoryview(raw)[:MAX_NAME_BYTES])
