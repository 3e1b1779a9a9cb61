"""What a failed connection says: that nobody is there, that nobody answered in time, or that this process itself has
no more sockets, which is no engine's fault.

Owns the one log line about the last of these, so that thousands of failures do not make thousands of lines.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Literal

log = logging.getLogger(__name__)

Blame = Literal["refused", "late", "ours"]

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_LOG_INTERVAL_S = 30.0
OUT_OF_SOCKETS = "the proxy has no more sockets"


def blame(error: BaseException) -> Blame:
    """Whose fault a failure to connect or to be answered is. Errors that wrap another one are judged by that."""
    inner = getattr(error, "os_error", None) or error.__cause__
    if isinstance(inner, OSError):
        error = inner
    if isinstance(error, socket.gaierror):
        # A name that does not exist is gone; a resolver that does not answer says nothing about the engine.
        return {socket.EAI_AGAIN: "late", socket.EAI_SYSTEM: "ours", socket.EAI_MEMORY: "ours"}.get(  # type: ignore[return-value]
            error.errno or 0, "refused"
        )
    if isinstance(error, TimeoutError):
        return "late"
    return "ours" if isinstance(error, OSError) and error.errno in _OURS else "refused"


class Shortage:
    """Says once in a while that sockets have run out, and what to raise. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said_at = float("-inf")

    def note(self, error: BaseException) -> None:
        now = self._clock()
        if now - self._said_at < _LOG_INTERVAL_S:
            return
        self._said_at = now
        log.error(
            "%s: no connection to an engine can be made (%s); raise the limit of open files (ulimit -n, or "
            "LimitNOFILE of a systemd unit), and where that is high the range of local ports "
            "(net.ipv4.ip_local_port_range). The engines are not blamed for it",
            OUT_OF_SOCKETS, error,
        )  # fmt: skip
