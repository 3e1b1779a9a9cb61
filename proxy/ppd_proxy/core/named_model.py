"""The model that a request names, for the log: raw, because most lines are never read."""

from __future__ import annotations

import msgspec

from ppd_proxy.core.chat import Generation

MAX_READ_BYTES = 1024 * 1024
"""Larger bodies that nobody else reads are not read for a name."""


class _Named(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_named = msgspec.json.Decoder(_Named)


def named_model(body: bytes, generation: Generation | None = None) -> msgspec.Raw | None:
    """The JSON value of `model`, whatever it is; None where it is absent or the body cannot be read. `generation` is
    the body's view where there is one."""
    if generation is not None:
        return generation.fields.get("model")
    if len(body) > MAX_READ_BYTES:
        return None
    try:
        model = _named.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if isinstance(model, msgspec.UnsetType) else model
