"""An engine's own errors: what they say, whatever their shape, and what of that a client may see.

Shapes: vLLM and OpenAI say `{"error": {"message", "type", "param", "code"}}`, Anthropic `{"type": "error", "error":
{"type", "message"}}`, the events of `/v1/responses` the same at the top level; older and other programs a text. No IO.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import msgspec

from ppd_wire.answers.removal import take_out_handoff
from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.generation import Fields

MAX_QUOTED_CHARS = 200
BROKEN_STATUS = 502
_HANDOFF_MARKS = (
    b"_transfer_params", b"___prefill_addr_", b"___decode_addr_", b"do_remote_", b"remote_engine_id",
    b"remote_block_ids", b"remote_request_id", b"remote_host", b"remote_port",
)  # fmt: skip
"""The names of handoff parameters and of their fields, and the tags that engine-side ids may be."""
_WITHHELD = "the engine reported an error; its words tell of the handoff between engines and are not passed on"
_STATUSES = MappingProxyType({
    # vLLM
    "BadRequestError": 400, "NotFoundError": 404, "UnprocessableEntityError": 422, "InternalServerError": 500,
    "internal_error": 500, "NotImplementedError": 501, "ServiceUnavailableError": 503,
    # Anthropic
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500,
    "timeout_error": 504, "overloaded_error": 529,
    # the codes of /v1/responses
    "invalid_prompt": 400, "rate_limit_exceeded": 429, "server_error": 500,
})  # fmt: skip
_decode = msgspec.json.Decoder().decode
_fields = msgspec.json.Decoder(Fields)
_encoder = msgspec.json.Encoder()


class EngineError(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine said of an error, and the status that it stands for: 502 where it names none."""

    message: str
    type: str | None = None
    param: str | None = None
    code: int | str | None = None

    @property
    def status(self) -> int:
        if isinstance(self.code, int) and 400 <= self.code <= 599:
            return self.code
        return _STATUSES.get(str(self.code), _STATUSES.get(self.type or "", BROKEN_STATUS))


def read_error(payload: bytes) -> EngineError:
    """The error in a JSON body or in the data of an event; what is no JSON is taken for its message."""
    try:
        said = _decode(payload)
    except BROKEN:
        said = payload.decode("utf-8", "replace")
    if isinstance(said, dict) and said.get("error"):
        said = said["error"]
    if not isinstance(said, dict):
        return EngineError(message=_quoted(str(said)) or "the engine reported an error")
    code = said.get("code")
    return EngineError(
        message=_text(said, "message") or _text(said, "detail") or "the engine reported an error",
        type=_text(said, "type"),
        param=_text(said, "param"),
        code=code if isinstance(code, int | str) and not isinstance(code, bool) else None,
    )


def openai_error(error: EngineError) -> bytes:
    """The error in the shape of vLLM and OpenAI."""
    code = error.code if error.code is not None else error.status
    return _encoder.encode(
        {"error": {"message": error.message, "type": error.type or "engine_error", "param": error.param, "code": code}}
    )


def shown_error(payload: bytes, *, hidden_id: bytes, public_id: bytes) -> bytes | None:
    """An error as the client may see it: byte for byte, without engine-side ids and handoff parameters. None where
    that cannot be: it is no JSON object, or tells of the handoff where nothing can be taken out."""
    try:
        payload.decode()
        _fields.decode(payload)
    except BROKEN:
        return None
    payload = take_out_handoff(payload).replace(hidden_id, public_id)
    return None if tells_of_handoff(payload) else payload


def tells_of_handoff(text: bytes) -> bool:
    return any(mark in text for mark in _HANDOFF_MARKS)


def withheld(error: EngineError, *, hidden_id: bytes) -> EngineError:
    """The error without words of its own where these tell what clients may not see."""
    words = "\0".join(str(each) for each in (error.message, error.type, error.param, error.code)).encode()
    if hidden_id not in words and not tells_of_handoff(words):
        return error
    return EngineError(message=_WITHHELD, code=error.status)


def quote(status: int, body: bytes, *, hidden_id: bytes) -> str:
    """A sentence for an error answer that is not passed on; with its beginning where that gives nothing away."""
    sentence = f"the engine answered {status}"
    if hidden_id in body or tells_of_handoff(body):
        return f"{sentence}; its words tell of the handoff between engines and are not passed on"
    said = _quoted(body[: 8 * MAX_QUOTED_CHARS].decode("utf-8", "replace"))
    return f"{sentence}: {said}" if said else sentence


def _quoted(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MAX_QUOTED_CHARS else words[:MAX_QUOTED_CHARS] + "..."


def _text(said: dict[str, Any], name: str) -> str | None:
    value = said.get(name)
    return value if isinstance(value, str) and value else None
