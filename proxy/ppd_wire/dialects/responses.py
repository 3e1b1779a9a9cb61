"""The dialect of `/v1/responses` (OpenAI): its streams, its errors, its usage. No IO.

A stream is over with `response.completed`, `response.incomplete` or `response.failed`. An error is an event of type
`error` that says `code`, `message` and `param`; the `openai` package raises one only if it has an `error` object too,
so ours have both. Errors without a stream have the shape of vLLM's other endpoints.
Source of the shapes: vLLM 0.32 (`entrypoints/openai/responses`), the `openai` package.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ppd_wire.answers.answer import EngineAnswer, PromptDetails, Usage
from ppd_wire.answers.engine_errors import openai_error, read_error, shown_error, withheld
from ppd_wire.dialects.typed_events import TypedRelay, read_object
from ppd_wire.events import Event, frame
from ppd_wire.requests.generation import Fields

_QUIET = frozenset({
    "response.created", "response.queued", "response.in_progress", "response.output_item.added",
    "response.content_part.added", "response.reasoning_part.added", "response.reasoning_summary_part.added",
})  # fmt: skip
"""What comes before any content. All others of the dialect are content, or come behind it."""
_FINAL = frozenset({"response.completed", "response.incomplete"})
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: _Count
    output_tokens: _Count | None = None
    input_tokens_details: _Details | None = None


_usage = msgspec.json.Decoder(_Usage | None)
_error = msgspec.json.Decoder(dict[str, object])
_encoder = msgspec.json.Encoder()


def error_event(body: bytes, number: int) -> bytes:
    """The last event of an answer that broke off, from the body that the error would have without a stream. `number`
    is the event's place in the stream."""
    error = _error.decode((read_object(body) or {})["error"])
    code = error.get("code")
    data = {
        "type": "error", "code": None if code is None else str(code), "message": error.get("message"),
        "param": error.get("param"), "sequence_number": number, "error": error,
    }  # fmt: skip
    return frame(_encoder.encode(data), b"error")


def read_responses_answer(fields: Fields) -> EngineAnswer | None:
    """The usage of a whole answer; None where the prompt's tokens are not known."""
    try:
        usage = _usage.decode(fields["usage"])
    except (KeyError, msgspec.DecodeError):
        return None
    if usage is None or not usage.input_tokens:
        return None
    cached = usage.input_tokens_details.cached_tokens if usage.input_tokens_details else None
    return EngineAnswer(
        usage=Usage(
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            prompt_tokens_details=PromptDetails(cached) if cached is not None else None,
        ),
        is_single=False,
    )


class ResponsesRelay(TypedRelay):
    __slots__ = ("_answer",)

    nested = "response"

    def __init__(self, *, hidden_id: bytes, public_id: bytes) -> None:
        super().__init__(hidden_id=hidden_id, public_id=public_id)
        self._answer: EngineAnswer | None = None

    def _typed(self, kind: str, event: Event, fields: Fields) -> bytes:
        if kind == "response.failed":
            return self._failed_response(event, fields)
        self.is_decisive = self.is_decisive or (
            kind not in _QUIET and kind.startswith("response.") and bytes(fields.get("delta", b"")) != b'""'
        )
        if kind in _FINAL:
            self._answer = read_responses_answer(read_object(fields.get("response")) or {})
            self._end()
        return self._shown(event).raw

    def _failed(self, event: Event, fields: Fields) -> bytes:
        return error_event(self._note(event.data), self._number)

    def _failed_response(self, event: Event, fields: Fields) -> bytes:
        """The end of an answer that failed; behind content it is for the client to read."""
        response = read_object(fields.get("response")) or {}
        self._note(bytes(response.get("error", b"{}")))
        return self._shown(event).raw

    def _note(self, said: bytes) -> bytes:
        """The body that this error would have without a stream."""
        error = withheld(read_error(said), hidden_id=self._hidden_id)
        shown = shown_error(said, hidden_id=self._hidden_id, public_id=self._public_id)
        if shown is None or not _has_error_object(shown):
            shown = openai_error(error)
        self._fail(shown, error.status)
        return shown

    def answer(self) -> EngineAnswer | None:
        return self._answer


def _has_error_object(body: bytes) -> bool:
    return bool(read_object((read_object(body) or {}).get("error")))
