"""The dialect of `/v1/messages` (Anthropic): its streams, its errors, its usage. No IO.

A stream is over with `message_stop`. Clients look at the *names* of events and pass over what has none, so an error
must be named `error`. Source of the shapes: vLLM 0.32 (`entrypoints/anthropic`), the `anthropic` package.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated

import msgspec

from ppd_wire.answers.answer import EngineAnswer, PromptDetails, Usage
from ppd_wire.answers.engine_errors import read_error, shown_error, withheld
from ppd_wire.dialects.typed_events import TypedRelay, read_object
from ppd_wire.events import Event, frame
from ppd_wire.requests.generation import Fields

_DECISIVE = frozenset({"content_block_delta", "message_delta", "message_stop"})
"""Content, and what comes behind it. vLLM sends `message_start` before it knows whether there will be any."""
_TYPES = MappingProxyType({
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
})  # fmt: skip
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Usage(msgspec.Struct, gc=False):
    """`input_tokens` leaves out what was found in a cache or written to one."""

    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None


_usage = msgspec.json.Decoder(_Usage | None)
_encoder = msgspec.json.Encoder()


def error_body(status: int, message: str, **more: object) -> bytes:
    """An error in Anthropic's shape; `more` are further fields of its `error`."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return _encoder.encode({"type": "error", "error": {"type": kind, "message": message, **more}})


def error_event(body: bytes) -> bytes:
    """The last event of an answer that broke off."""
    return frame(body, b"error")


class Counts:
    """The token counts of one answer. Each `usage` replaces what earlier ones said, as far as it goes."""

    __slots__ = ("_completion_tokens", "_prompt")

    def __init__(self) -> None:
        self._prompt: _Usage | None = None
        self._completion_tokens: int | None = None

    def add(self, raw: msgspec.Raw | None, *, is_final: bool) -> None:
        """A stream's first `usage` knows nothing of the answer yet."""
        try:
            usage = _usage.decode(raw) if raw is not None else None
        except msgspec.DecodeError:
            return
        if usage is not None and usage.input_tokens is not None:
            self._prompt = usage
        if usage is not None and is_final:
            self._completion_tokens = usage.output_tokens

    def answer(self) -> EngineAnswer | None:
        """None where the prompt's tokens are not known: vLLM writes 0 then."""
        prompt = self._prompt
        if prompt is None:
            return None
        cached = prompt.cache_read_input_tokens
        tokens = (prompt.input_tokens or 0) + (cached or 0) + (prompt.cache_creation_input_tokens or 0)
        if not tokens:
            return None
        details = PromptDetails(cached) if cached is not None else None
        usage = Usage(
            prompt_tokens=tokens, completion_tokens=self._completion_tokens, prompt_tokens_details=details
        )
        return EngineAnswer(usage=usage, is_single=False)


def read_messages_answer(fields: Fields) -> EngineAnswer | None:
    """The usage of a whole answer."""
    counts = Counts()
    counts.add(fields.get("usage"), is_final=True)
    return counts.answer()


class MessagesRelay(TypedRelay):
    __slots__ = ("_counts",)

    nested = "message"

    def __init__(self, *, hidden_id: bytes, public_id: bytes) -> None:
        super().__init__(hidden_id=hidden_id, public_id=public_id)
        self._counts = Counts()

    def _typed(self, kind: str, event: Event, fields: Fields) -> bytes:
        if kind == "message_start":
            self._counts.add((read_object(fields.get("message")) or {}).get("usage"), is_final=False)
        elif kind == "message_delta":
            self._counts.add(fields.get("usage"), is_final=True)
        self.is_decisive = self.is_decisive or kind in _DECISIVE
        if kind == "message_stop":
            self._end()
        shown = self._shown(event).raw
        return shown if event.name else b"event: " + kind.encode() + b"\n" + shown

    def _failed(self, event: Event, fields: Fields) -> bytes:
        said = withheld(read_error(event.data), hidden_id=self._hidden_id)
        shown = shown_error(event.data, hidden_id=self._hidden_id, public_id=self._public_id)
        if shown is None or bytes(fields.get("type", b"")) != b'"error"' or read_object(fields.get("error")) is None:
            shown = error_body(said.status, said.message)
        self._fail(shown, said.status)
        return error_event(shown.replace(b"\n", b" "))

    def answer(self) -> EngineAnswer | None:
        return self._counts.answer()
