"""The data path: generation endpoints as bare ASGI, wrapped round the Quart application.

Owns the client's side of one request: reading the body within its limit, watching for the client to leave, writing the
answer. Everything else goes to the wrapped application.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from ppd_proxy.collaborators import Call
from ppd_proxy.core.dialects import Dialect
from ppd_proxy.core.headers import Headers, bearer
from ppd_proxy.core.signals import ClientGone
from ppd_proxy.director import Director
from ppd_proxy.errors import BadRequest, ProxyError
from ppd_proxy.sections import Auth
from ppd_proxy.server.access import check_client
from ppd_proxy.server.bodies import BODY_KEY, Bodies, ClientLeft, Message, Receive, replay
from ppd_proxy.server.paths import with_query
from ppd_proxy.server.protocol import SCOPE_KEY, ClientConnection, Writer
from ppd_proxy.server.render import error_body, error_event, error_headers, internal_error
from ppd_proxy.tasks import Tasks
from ppd_proxy.upstream.mailbox import Mailbox

log = logging.getLogger(__name__)

Scope = Message
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GENERATION_PATHS: Mapping[str, Dialect] = MappingProxyType({
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
})  # fmt: skip
"""Endpoints that generate."""


class DataPath:
    def __init__(self, app: App, director: Director, tasks: Tasks, auth: Auth, bodies: Bodies) -> None:
        self._app = app
        self._director = director
        self._tasks = tasks
        self._auth = auth
        self._bodies = bodies
        self._loop = director.shared.loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in GENERATION_PATHS:
            await self._serve(scope, receive, send)
        elif scope["type"] == "http" and _has_body(scope["headers"]):
            await self._hand_over(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _hand_over(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request with a body to the wrapped application, which would read it without our bounds."""
        try:
            body = await self._bodies.read(dict(scope["headers"]), receive)
        except ClientLeft:
            return
        except ProxyError as error:
            self.refuse(scope.get("raw_path") or scope["path"].encode(), error)
            await AsgiClient(send).fail(error, [(b"connection", b"close")])
            return
        scope[BODY_KEY] = body
        try:
            await self._app(scope, replay(body, receive), send)
        finally:
            self._bodies.free(body)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_at = self._loop.time()
        dialect = GENERATION_PATHS[scope["path"]]
        client = AsgiClient(send, dialect)
        headers: Headers = scope["headers"]
        named = dict(headers)
        call = Call(
            path=with_query(scope["path"].encode(), scope.get("query_string", b"")),
            dialect=dialect,
            body=b"",
            headers=headers,
            named=named,
            client_key=(bearer(named) or named.get(b"authorization", b"")).decode("latin-1"),
            received_at=received_at,
        )
        try:
            if scope["method"] != "POST":
                raise BadRequest(f"{scope['path']} takes POST, not {scope['method']}", status=405)
            check_client(self._auth, named)
            call.body = await self._bodies.read(named, receive)
        except ClientLeft:
            return
        except ProxyError as error:
            handling = self._director.refuse(call, error)
            await client.fail(error, [*handling.own_headers(), (b"connection", b"close")])
            return
        try:
            await self._answer(call, scope, receive, client)
        finally:
            self._bodies.free(call.body)

    async def _answer(self, call: Call, scope: Scope, receive: Receive, client: AsgiClient) -> None:
        connection: ClientConnection | None = scope.get(SCOPE_KEY)
        mailbox = Mailbox(self._loop)
        if connection is None:
            self._tasks.spawn(_watch(receive, mailbox))
        else:
            if connection.transport.is_closing():
                return
            connection.mailbox = mailbox
        try:
            await self._director.serve(call, client, mailbox)
        except Exception:  # the last boundary: a bug must still give the client a status
            if client.status:
                raise
            log.exception("request failed path=%s", scope["path"])
            await client.fail(internal_error(), [(b"x-ppd-decision", b"none;reason=internal_error;turn=1")])
        finally:
            if connection is not None and connection.mailbox is mailbox:
                connection.mailbox = None  # not the next request's: this one may give KV back behind its answer

    def refuse(self, path: bytes, error: ProxyError) -> tuple[Headers, bytes]:
        """Count and log a request that gets no further than its connection; the answer's headers and body."""
        dialect = GENERATION_PATHS.get(path.partition(b"?")[0].decode("latin-1"), "chat")
        now = self._loop.time()
        call = Call(path=path, dialect=dialect, body=b"", headers=[], named={}, client_key="", received_at=now)
        handling = self._director.refuse(call, error)
        return [*error_headers(error), *handling.own_headers()], error_body(error, dialect)


async def _watch(receive: Receive, mailbox: Mailbox) -> None:
    """ASGI servers deliver one more message after the body: that the client left, or that the answer is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass
    mailbox.put(ClientGone())


def _has_body(headers: Headers) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in headers)


class AsgiClient:
    """One answer to the client, whose errors are in the request's dialect. `status` is 0 until it began."""

    __slots__ = ("_dialect", "_send", "status", "writer")

    def __init__(self, send: Send, dialect: Dialect = "chat") -> None:
        self._send = send
        self._dialect: Dialect = dialect
        self.writer = Writer.of(send)
        self.status = 0

    @property
    def is_lost(self) -> bool:
        return self.writer is not None and self.writer.is_lost

    async def start(self, status: int, headers: Headers, data: bytes) -> None:
        if self.is_lost:
            return
        self.status = status
        if self.writer is not None:
            self.writer.start(status, headers, data)
        else:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            await self.write(data)

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    def answer(self, status: int, headers: Headers, body: bytes) -> Awaitable[None] | None:
        headers.append((b"content-length", b"%d" % len(body)))
        if self.writer is None:
            return self._answer(status, headers, body)
        if self.writer.write_answer(status, headers, body):
            self.status = status
        return None

    async def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        if self.is_lost:
            return
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self.end(body)

    async def fail(self, error: ProxyError, headers: Headers) -> None:
        body = error_body(error, self._dialect)
        length = (b"content-length", b"%d" % len(body))
        await self._answer(error.status, [*error_headers(error), *headers, length], body)

    async def break_off(self, error: ProxyError, number: int) -> None:
        await self.end(error_event(error, self._dialect, number))
