"""Counts and logs what does not go by the data path: requests that are passed on, and all that is refused.

An ASGI application round the others. What the proxy's own endpoints answer is not noted: probes and scrapes come every
few seconds, and tell nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppd_core.fleet.engine import Engine
from ppd_core.policy.plan import DecisionReason
from ppd_proxy.collaborators import Collaborators
from ppd_proxy.core.record import Record
from ppd_proxy.server.bodies import BODY_KEY, Message, Receive
from ppd_proxy.server.data_path import App, Scope, Send
from ppd_wire.errors import EngineFailure, ProxyError
from ppd_wire.requests.named_model import named_model

_KEY = "ppd_proxy.record"
GONE_STATUS = 499


class Noting:
    """`app` says in the request's scope what is to be noted: by `note_passed_on` and `note_refused`."""

    def __init__(self, app: App, shared: Collaborators) -> None:
        self._app = app
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shared = self._shared
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        record = Record(request_id=shared.new_key(), mode=shared.mode, received_at=shared.loop.time(), path=path)
        scope[_KEY] = record

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except EngineFailure as failure:
            record.error = failure.message  # in the middle of its answer; the client's connection closes on it
        finally:
            if record.reason is DecisionReason.PASSED_ON or record.error is not None:
                record.model = named_model(scope.get(BODY_KEY, b""))
                self._finish(record)

    def _finish(self, record: Record) -> None:
        record.is_client_gone = record.status == 0
        record.status = record.status or GONE_STATUS
        record.ended_at = self._shared.loop.time()
        self._shared.observer.decided(record.mode, "none", record.reason)
        self._shared.observer.finished(record)


def note_passed_on(scope: Mapping[str, Any], engine: Engine) -> None:
    """The request goes to `engine`."""
    record: Record | None = scope.get(_KEY)
    if record is not None:
        record.reason, record.decode_id = DecisionReason.PASSED_ON, engine.id


def note_refused(scope: Mapping[str, Any], error: ProxyError) -> None:
    """The request is answered with `error`."""
    record: Record | None = scope.get(_KEY)
    if record is not None:
        record.reason, record.error = error.reason, error.message
