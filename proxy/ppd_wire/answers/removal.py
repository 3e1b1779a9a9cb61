"""Taking out of an answer what the proxy asked for and the client did not, and what engines tell each other.

What is left is byte for byte what vLLM 0.32 sends when nobody asks. There both fields are always written, as null:
`token_ids` and `logprobs` in each choice, `prompt_token_ids` in each choice (completions) or beside the choices (chat,
in a stream in its first event only). So values become null and nothing is added or removed; where a field is absent
(`token_ids` in chat's first event) it is absent either way. `requests/asked.py` says which requests may be asked so.
"""

from __future__ import annotations

import msgspec

from ppd_wire.json.broken import BROKEN
from ppd_wire.json.literals import hide, show
from ppd_wire.requests.asked import Asked
from ppd_wire.requests.generation import KV_PARAMS, Fields

HANDOFF_MARK = b'_transfer_params"'
_EC_PARAMS = "ec_transfer_params"
_NO_PARAMS = f',"{KV_PARAMS}":null'.encode()
_SMALL_BYTES = 65536
_NO_EC_PARAMS = f'"{_EC_PARAMS}":null'.encode()
_NULL = msgspec.Raw(b"null")
_fields = msgspec.json.Decoder(Fields)
_choices = msgspec.json.Decoder(list[Fields])
_encoder = msgspec.json.Encoder()


def take_out(payload: bytes, asked: Asked) -> bytes | None:
    """A JSON answer or the data of one event without what was `asked` for; what is no answer passes as it came.

    None for an event that vLLM sends only because it was asked: chat streams have one for every step then, with an
    empty delta where a tool or reasoning parser has nothing to tell yet. With one of the two fields wanted by the
    client, such events are there anyway.
    """
    try:
        fields = _fields.decode(payload)
    except BROKEN:
        return _take_out_hidden(payload, asked)
    try:
        choices = _choices.decode(fields["choices"])
    except (KeyError, *BROKEN):
        return payload  # an error, or no answer of an engine: nothing of ours is in it
    if asked.ids and asked.logprobs and any(_is_silent(choice) for choice in choices):
        return None
    in_choices = [_blank(choice, name) for choice in choices for name in _names(asked)]
    if any(in_choices):
        fields["choices"] = msgspec.Raw(_encoder.encode(choices))
    is_prompt_shown = asked.ids and _blank(fields, "prompt_token_ids")
    return _encoder.encode(fields) if is_prompt_shown or any(in_choices) else payload


def take_out_handoff(payload: bytes, nested: str = "") -> bytes:
    """A JSON object without handoff parameters, neither at its top nor in its member `nested`. What holds none, and
    what is no object, comes back as it is."""
    if payload.find(HANDOFF_MARK) < 0:  # `in` first takes the mark for a number, and fails
        return payload
    if len(payload) <= _SMALL_BYTES:  # larger ones are searched as fast as they are read
        payload = payload.replace(_NO_PARAMS, b"")  # as vLLM says that there are none; no JSON text can hold this
        if payload.count(HANDOFF_MARK) == payload.count(_NO_EC_PARAMS):
            return payload
    try:
        fields = _fields.decode(payload)
        inner = _fields.decode(fields[nested]) if nested in fields else None
    except BROKEN:
        return payload
    is_changed = _drop(fields)
    if inner is not None and _drop(inner):
        is_changed = True
        fields[nested] = msgspec.Raw(_encoder.encode(inner))
    return _encoder.encode(fields) if is_changed else payload


def _drop(fields: Fields) -> bool:
    """Whether there was anything. `ec_transfer_params` of null are in every answer of vLLM and tell nothing."""
    has_any = fields.pop(KV_PARAMS, None) is not None
    if _EC_PARAMS in fields and bytes(fields[_EC_PARAMS]) != b"null":
        del fields[_EC_PARAMS]
        return True
    return has_any


def _take_out_hidden(payload: bytes, asked: Asked) -> bytes | None:
    """An answer with numbers that are not JSON: from an engine whose encoder lets NaN pass."""
    hidden = hide(payload)
    if hidden == payload:
        return payload
    shown = take_out(hidden, asked)
    return show(shown) if shown is not None else None


def _names(asked: Asked) -> tuple[str, ...]:
    """What a choice has of it."""
    return (*(("token_ids", "prompt_token_ids") if asked.ids else ()), *(("logprobs",) if asked.logprobs else ()))


def _blank(fields: Fields, name: str) -> bool:
    """Whether there was anything."""
    if name not in fields or bytes(fields[name]) == b"null":
        return False
    fields[name] = _NULL
    return True


def _is_silent(choice: Fields) -> bool:
    """Neither a piece of the answer nor its end."""
    return bytes(choice.get("delta", b"")) == b"{}" and bytes(choice.get("finish_reason", _NULL)) == b"null"
