"""Errors for callers: each says which status it means, why, whose fault it is and whether a retry is safe.

Nothing else defines an error that reaches a client; `ppd_proxy/server/render.py` turns these into bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Source = Literal["client", "engine", "proxy"]


class Refusal(StrEnum):
    """Why a request was refused before it was routed."""

    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_COMPLEX = "body_too_complex"
    BUFFERS_FULL = "buffers_full"
    HEAD_TOO_LARGE = "head_too_large"
    CLIENT_TIMEOUT = "client_timeout"
    UNAUTHORIZED = "unauthorized"


class Failure(StrEnum):
    """Why a request that was accepted got no complete answer."""

    ENGINE_UNREACHABLE = "engine_unreachable"
    ENGINE_ERROR = "engine_error"
    ENGINE_TIMEOUT = "engine_timeout"
    OUT_OF_SOCKETS = "out_of_sockets"
    STOPPING = "stopping"
    INTERNAL_ERROR = "internal_error"


class ProxyError(Exception):
    """A request that cannot be served.

    `status` is the HTTP status the client gets, `reason` a Refusal, a Failure, or the core's word for why there
    is no route, `source` whose fault it is, `is_retryable` whether the same request may succeed later without change.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        reason: StrEnum,
        source: Source,
        is_retryable: bool = False,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.source: Source = source
        self.is_retryable = is_retryable
        self.param = param


class BadRequest(ProxyError):
    """The client's request is wrong; `param` names the field."""

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, reason: Refusal = Refusal.BAD_REQUEST
    ) -> None:
        super().__init__(message, status=status, reason=reason, source="client", param=param)


class NoRoute(ProxyError):
    """No engine can take the request now."""

    def __init__(self, message: str, *, reason: StrEnum) -> None:
        super().__init__(message, status=503, reason=reason, source="proxy", is_retryable=True)


class EngineFailure(ProxyError):
    """An engine refused, broke off or did not answer in time. `is_late`: it may only be busy. `source` is `proxy` where
    the proxy itself could not ask it."""

    def __init__(
        self, message: str, *, reason: Failure, status: int = 502, source: Source = "engine", is_late: bool = False
    ) -> None:
        super().__init__(message, status=status, reason=reason, source=source, is_retryable=True)
        self.is_late = is_late
