"""Counts and logs what does not go by the data path: requests that are passed on, and all that is refused.

An ASGI application round the others. What the proxy's own endpoints answer is not noted: probes and scrapes come every
few seconds, and tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from ppd_core.fleet.engine import Engine
from ppd_core.policy.plan import DecisionReason, Mode, Route
from ppd_proxy.control import Control
from ppd_proxy.request.record import Record
from ppd_proxy.server.bodies import BODY_KEY, Message, Receive
from ppd_proxy.server.data_path import App, Scope, Send
from ppd_wire.errors import EngineFailure, ProxyError
from ppd_wire.requests.named_model import named_model

_KEY = "ppd_proxy.record"
GONE_STATUS = 499


class Watching(Protocol):
    def decided(self, mode: Mode, route: Route, reason: StrEnum) -> None: ...

    def finished(self, record: Record) -> None: ...


class Noting:
    """`app` says in the request's scope what is to be noted: by `note_passed_on` and `note_refused`. `new_key` gives
    the records their ids, `clock` the loop's time."""

    def __init__(
        self,
        app: App,
        control: Control,
        observer: Watching,
        new_key: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._control = control
        self._observer = observer
        self._new_key = new_key
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        record = Record(request_id=self._new_key(), mode=self._control.mode, received_at=self._clock(), path=path)
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
        record.ended_at = self._clock()
        self._observer.decided(record.mode, "none", record.reason)
        self._observer.finished(record)


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
