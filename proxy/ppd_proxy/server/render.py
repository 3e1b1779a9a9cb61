"""Errors as bytes: the only place that turns a `ProxyError` into a status and a body.

The shape is the one vLLM and OpenAI use: `{"error": {"message", "type", "param", "code"}}`, with the proxy's `reason`;
on `/v1/messages` it is Anthropic's.
"""

from __future__ import annotations

from types import MappingProxyType

import msgspec

from ppd_wire.dialects import messages, responses
from ppd_wire.dialects.dialects import Dialect
from ppd_wire.errors import BadRequest, Failure, ProxyError, Refusal
from ppd_wire.events import frame
from ppd_wire.headers import Headers

_TYPES = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        502: "engine_error",
        503: "service_unavailable_error",
        504: "timeout_error",
    }
)
RETRY_AFTER_S = 2
"""With 503: engines are probed every few seconds, so asking again much sooner is pointless."""


def error_object(error: ProxyError) -> dict[str, object]:
    kind = _TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else f"{error.source}_error"
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.status,
            "reason": str(error.reason),
        }
    }


def error_body(error: ProxyError, dialect: Dialect = "chat") -> bytes:
    if dialect == "messages":
        return messages.error_body(error.status, error.message, reason=str(error.reason))
    return msgspec.json.encode(error_object(error))


def error_event(error: ProxyError, dialect: Dialect, number: int) -> bytes:
    """The last event of a stream that failed midway; `number` is its place in the stream."""
    body = error_body(error, dialect)
    if dialect == "messages":
        return messages.error_event(body)
    if dialect == "responses":
        return responses.error_event(body, number)
    return frame(body)


def error_headers(error: ProxyError) -> Headers:
    headers: Headers = [(b"content-type", b"application/json")]
    if error.status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def internal_error() -> ProxyError:
    """A bug of the proxy."""
    return ProxyError("internal error of the proxy", status=500, reason=Failure.INTERNAL_ERROR, source="proxy")


def too_large(max_body_bytes: int) -> BadRequest:
    return BadRequest(
        f"the request body is larger than {max_body_bytes} bytes (--max-body-bytes)",
        status=413,
        reason=Refusal.BODY_TOO_LARGE,
    )
