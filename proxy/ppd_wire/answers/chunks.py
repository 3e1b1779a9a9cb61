"""The events of a stream of chat or completion chunks, many at once. No IO.

Source of the shapes: vLLM 0.32, which writes one event after the other without white space: so they make one JSON list,
which is read at a third of the cost of its parts.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ppd_wire.answers.answer import Reply
from ppd_wire.events import payloads
from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.generation import Fields

_LAST_EVENTS = 3
"""An answer ends with its finish reason, its usage and `[DONE]`; what comes before are pieces of text, mostly."""


class _Piece(msgspec.Struct, gc=False):
    content: str
    reasoning: None = None
    reasoning_content: None = None
    tool_calls: None = None


class _PlainChoice(msgspec.Struct, gc=False):
    delta: _Piece
    index: Literal[0] = 0
    message: None = None
    finish_reason: None = None
    token_ids: None = None


class _PlainChunk(msgspec.Struct, gc=False):
    """A piece of text and nothing else that counts."""

    choices: tuple[_PlainChoice]
    usage: None = None


class _LooseReply(msgspec.Struct, gc=False):
    """What any answer must have, whatever else is in it."""

    choices: list[Fields]
    error: Any = None


_replies = msgspec.json.Decoder(list[Reply])
_reply = msgspec.json.Decoder(Reply)
_plain = msgspec.json.Decoder(list[_PlainChunk])
_loose_reply = msgspec.json.Decoder(_LooseReply)
_DONE = b"data: [DONE]\n\n"


def split_plain(stream: bytes) -> tuple[list[str], bytes]:
    """The texts of a chat stream's first events, all but the last few, and the rest of it; no texts and all of it where
    one of them says anything else."""
    end = len(stream)
    for _ in range(_LAST_EVENTS + 1):  # the last one ends where the stream does
        end = stream.rfind(b"\n\n", 0, end)
    if end <= 0:
        return [], stream
    try:
        chunks = _plain.decode(_joined(stream[:end]))
    except BROKEN:
        return [], stream
    return [chunk.choices[0].delta.content for chunk in chunks], stream[end + 2 :]


def read_chunks(stream: bytes) -> list[Reply] | None:
    """The events of a stream, or of a part of one; None when one of them is no chunk of an answer."""
    try:
        return _replies.decode(_joined(stream.removesuffix(_DONE).removesuffix(b"\n\n")))
    except BROKEN:
        pass
    try:
        return [_reply.decode(payload) for payload in payloads(stream)]
    except BROKEN:
        return None


def _joined(events: bytes) -> bytes:
    """As one JSON list, where they are written as vLLM writes them; the last without its end."""
    return b"[%b]" % events.removeprefix(b"data: ").replace(b"\n\ndata: ", b",")


def are_chunks(stream: bytes) -> bool:
    """Whether every event of a stream in vLLM's form is a chunk as far as JSON goes."""
    try:
        for event in stream.split(b"\n\n")[:-1]:
            _loose_reply.decode(event.removeprefix(b"data: "))
    except BROKEN:
        return False
    return True
