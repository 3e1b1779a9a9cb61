"""What the client sees of an engine's answer. Pure."""

from __future__ import annotations

from ppd_proxy.request.record import Record
from ppd_wire.answers.answer import client_body
from ppd_wire.answers.engine_errors import quote, shown_error
from ppd_wire.errors import EngineFailure, Failure
from ppd_wire.headers import Headers
from ppd_wire.requests.asked import Asked


def own_headers(record: Record, shown_id: str) -> Headers:
    """What every generation answer carries."""
    decision = f"{record.route};reason={record.reason};turn={record.turn}"
    return [(b"x-ppd-decision", decision.encode()), (b"x-request-id", shown_id.encode("latin-1"))]


def shown_body(status: int, body: bytes, *, hidden_id: bytes, public_id: bytes, asked: Asked) -> bytes | None:
    """A whole answer; None for an error that the client may not see."""
    if status != 200:
        return shown_error(body, hidden_id=hidden_id, public_id=public_id)
    return client_body(body, hidden_id=hidden_id, public_id=public_id, asked=asked)


def unseen_error(status: int, body: bytes, *, hidden_id: bytes, shown_status: int) -> EngineFailure:
    """What the client gets instead of such an error."""
    return EngineFailure(quote(status, body, hidden_id=hidden_id), reason=Failure.ENGINE_ERROR, status=shown_status)


def unseen_headers(headers: Headers, own: Headers, shown_status: int) -> Headers:
    """Of the engine's, only when to come again; our own 503 says that by itself."""
    wait = [pair for pair in headers if pair[0] == b"retry-after" and shown_status != 503]
    return [*own, *wait]
