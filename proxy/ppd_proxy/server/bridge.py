"""One request of an ASGI application on a client's connection: everything that is no generation.

Where an answer ends is decided here alone, whatever the application's fields say of a coding: by its length, by chunks,
or, for a client of HTTP/1.0 that is told no length, by the connection's end. HTTP/1.0 knows no chunks and would take
their lines for text.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

from ppd_proxy.server.answer_heads import CONTINUE, LAST_CHUNK, STATUS_LINES, answer_head
from ppd_proxy.server.bodies import Message
from ppd_proxy.server.data_path import App
from ppd_proxy.server.flow import HIGH_WATER_BYTES
from ppd_proxy.server.heads import RequestHead
from ppd_proxy.server.render import error_body, error_headers, internal_error
from ppd_proxy.server.reply import Line
from ppd_wire.headers import Headers

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

log = logging.getLogger(__name__)


class Bridge:
    """`run` it, `feed` it what arrives of the body, and say when the `client_left`. `scope` is what the connection says
    of itself; `keep_alive` may be taken away until the answer begins."""

    __slots__ = (
        "_body", "_has_news", "_held_bytes", "_is_bodiless", "_is_continue_due", "_is_old", "_left_bytes", "_line",
        "_more_body", "_scope", "disconnected", "is_ended_by_close", "keep_alive", "response_complete",
        "response_started",
    )  # fmt: skip

    def __init__(self, line: Line, head: RequestHead, path: str, scope: Mapping[str, Any], *, keep_alive: bool) -> None:
        self._line = line
        self._scope: Message = {
            **scope,
            "http_version": head.version,
            "headers": head.headers,
            "method": head.method,
            "path": path,
            "raw_path": head.path,
            "query_string": head.query,
        }
        self._is_old = head.version != "1.1"
        self._is_continue_due = head.awaits_continue
        self._body: list[bytes] = []
        self._held_bytes = 0
        self._more_body = True
        self._has_news = asyncio.Event()
        self._is_bodiless = head.method == "HEAD"
        self._left_bytes: int | None = None
        """Of the length that the answer tells; None where it tells none."""
        self.keep_alive = keep_alive
        self.is_ended_by_close = False
        self.disconnected = False
        """The client left before it was handed the last byte of the answer."""
        self.response_started = False
        self.response_complete = False

    @property
    def is_cut(self) -> bool:
        """Closing the connection now would make an end of what is none."""
        return self.is_ended_by_close and not self.response_complete

    # -- the client --

    def feed(self, part: bytes, *, is_whole: bool) -> None:
        """What has arrived of the body."""
        if part:
            self._body.append(part)
            self._held_bytes += len(part)
        if is_whole:
            self._more_body = False
        elif self._held_bytes > HIGH_WATER_BYTES:
            self._line.flow.pause_reading()
        self._has_news.set()

    def client_left(self) -> None:
        self.disconnected = not self.response_complete
        self._has_news.set()

    # -- the application --

    async def run(self, app: App) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  the last boundary: a bug must still give the client a status
            self._report(error)
        else:
            if not (self.response_complete or self.disconnected):
                self._report(None)
        finally:
            if not (self.response_complete or self.disconnected):
                self._give_up()

    def _report(self, error: Exception | None) -> None:
        what = "failed" if error is not None else "ended without its whole answer"
        log.error("request %s path=%s", what, self._scope["raw_path"].decode(), exc_info=error)

    def _give_up(self) -> None:
        if self.response_started:
            self._line.close()
            return
        error = internal_error()
        body = error_body(error)
        self.keep_alive = False
        self._start(error.status, [*error_headers(error), (b"content-length", b"%d" % len(body))])
        self._put(body, is_last=True)

    async def _receive(self) -> Message:
        if self._is_continue_due and not self.disconnected:
            self._is_continue_due = False
            self._line.write(CONTINUE)
        if not self.disconnected and not self.response_complete:
            if self._more_body:
                self._line.flow.resume_reading()
            await self._has_news.wait()
            self._has_news.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body = b"".join(self._body)
        self._body.clear()
        self._held_bytes = 0
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    async def _send(self, message: Message) -> None:
        if not self.disconnected:
            await self._line.flow.drain()
        if self.disconnected:
            return
        expected = "http.response.body" if self.response_started else "http.response.start"
        if self.response_complete or message["type"] != expected:
            raise RuntimeError(f"the application sent {message['type']} out of its turn")
        if self.response_started:
            self._put(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            self._start(message["status"], [(name.lower(), value) for name, value in message.get("headers", ())])

    def _start(self, status: int, headers: Headers) -> None:
        headers = [field for field in headers if field[0] != b"transfer-encoding"]
        named = _checked(status, headers)
        closes = b"close" in [token.strip() for token in named.get(b"connection", b"").lower().split(b",")]
        head = answer_head(status, headers, is_last=not self.keep_alive and not closes)
        self.keep_alive = self.keep_alive and not closes
        self._is_bodiless = self._is_bodiless or status in (204, 304)
        if b"content-length" in named:
            self._left_bytes = int(named[b"content-length"])
        elif self._is_old:
            self.is_ended_by_close = not self._is_bodiless
        elif not self._is_bodiless:
            head.append(b"transfer-encoding: chunked\r\n")
        self._is_continue_due = False
        self.response_started = True
        head.append(b"\r\n")
        self._line.write(b"".join(head))

    def _put(self, body: bytes, *, is_last: bool) -> None:
        if self._is_bodiless:
            body = b""
        elif self._left_bytes is not None:
            self._left_bytes -= len(body)
            if self._left_bytes < 0 or (is_last and self._left_bytes):
                raise RuntimeError("the application's answer has not the length that it told")
        elif not self.is_ended_by_close:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = framed + LAST_CHUNK if is_last else framed
        if body:
            self._line.write(body)
        if is_last:
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._has_news.set()
        if not self.keep_alive:
            self._line.close()
        self._line.answered()


def _checked(status: int, headers: Headers) -> dict[bytes, bytes]:
    """The fields by name; raises RuntimeError for those that would be lines of their own, or none."""
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise RuntimeError(f"the application's header {name!r} is none")
    named = dict(headers)
    if status not in STATUS_LINES or not named.get(b"content-length", b"0").isdigit():
        raise RuntimeError("the application's answer has no status that ends a request, or no length that is one")
    return named
