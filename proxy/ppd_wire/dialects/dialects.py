"""The dialects of the generation endpoints: what a whole answer must be in each, and what it says.

A status of 200 alone says nothing: another program may listen on an engine's port, and a body may have been cut without
a sign of it. What is no answer in the dialect of the request is the engine's failure. No IO.
Source of the shapes: vLLM 0.32.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ppd_wire.answers.answer import Choice, EngineAnswer, Reply, whole_answer
from ppd_wire.answers.prompt_counts import counted
from ppd_wire.answers.removal import take_out
from ppd_wire.dialects.messages import MessagesRelay, read_messages_answer
from ppd_wire.dialects.relay import Relay
from ppd_wire.dialects.responses import ResponsesRelay, read_responses_answer
from ppd_wire.dialects.typed_events import read_object
from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.asked import NOTHING, Asked
from ppd_wire.requests.generation import KV_PARAMS, Fields, is_absent

Dialect = Literal["chat", "completion", "responses", "messages"]


class BrokenAnswer(ValueError):
    """What an engine answered with 200 is no answer; the message says why."""


class _Whole(Reply, kw_only=True, gc=False):
    choices: list[Choice]
    error: Any = None


class HandedOver(msgspec.Struct, frozen=True, gc=False):
    """What a prefill answer hands over: the raw `kv_transfer_params`, None when absent or null, and how many prompt
    tokens it counts, None when it does not tell."""

    params: bytes | None
    prompt_tokens: int | None


class _PrefillAnswer(msgspec.Struct, gc=False):
    choices: list[Fields]
    error: Any = None
    usage: Any = None
    params: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name=KV_PARAMS)


_whole = msgspec.json.Decoder(_Whole)
_prefill_answer = msgspec.json.Decoder(_PrefillAnswer)
_choices = msgspec.json.Decoder(list[Fields])


def opaque_relay(dialect: Dialect, *, hidden_id: bytes, public_id: bytes) -> Relay:
    """The relay of an endpoint that is never split."""
    kind = MessagesRelay if dialect == "messages" else ResponsesRelay
    return kind(hidden_id=hidden_id, public_id=public_id)


def read_whole(dialect: Dialect, body: bytes, asked: Asked = NOTHING) -> EngineAnswer | None:
    """What a whole answer with status 200 says; None where it is one, but nothing more can be read from it.

    Raises BrokenAnswer for all else: no JSON object, an error, nothing that an answer has. Numbers that are not JSON
    are allowed only in what the proxy `asked` for by itself: the client never sees it.
    """
    if dialect in ("messages", "responses"):
        return _read_opaque(dialect, body)
    try:
        whole = _whole.decode(body)
    except BROKEN:
        _check_choices((take_out(body, asked) or body) if asked.is_anything else body)
        return None
    if whole.error is not None:
        raise BrokenAnswer("the engine answered 200 with an error")
    return whole_answer(whole)


def read_prefill(body: bytes) -> HandedOver:
    """What a whole prefill answer with status 200 hands over. Raises BrokenAnswer as `read_whole` does."""
    try:
        answer = _prefill_answer.decode(body)
    except BROKEN:
        _check_choices(body)
        raise BrokenAnswer("the engine answered 200 with something that is no answer") from None
    if answer.error is not None:
        raise BrokenAnswer("the engine answered 200 with an error")
    params = bytes(answer.params)
    return HandedOver(None if params == b"null" else params, counted(answer.usage))


def _check_choices(body: bytes) -> None:
    """An answer that says something else than vLLM's do."""
    fields = _members(body)
    try:
        _choices.decode(fields["choices"])
    except (KeyError, *BROKEN):
        raise BrokenAnswer("the engine answered 200 without a list of choices") from None


def _read_opaque(dialect: Dialect, body: bytes) -> EngineAnswer | None:
    fields = _members(body)
    if dialect == "messages":
        if bytes(fields.get("type", b"")) != b'"message"' and not _is_list(fields, "content"):
            raise BrokenAnswer("the engine answered 200 with something that is no message")
        return read_messages_answer(fields)
    if bytes(fields.get("object", b"")) != b'"response"' and not _is_list(fields, "output"):
        raise BrokenAnswer("the engine answered 200 with something that is no response")
    return read_responses_answer(fields)


def _members(body: bytes) -> Fields:
    """The members of an object that is no error."""
    fields = read_object(body)
    if fields is None:
        raise BrokenAnswer("the engine answered 200 with something that is no JSON object")
    if not is_absent(fields, "error"):
        raise BrokenAnswer("the engine answered 200 with an error")
    return fields


def _is_list(fields: Fields, name: str) -> bool:
    return bytes(fields.get(name, b"")).startswith(b"[")
