"""The data path: generation endpoints, from the head of a request to the end of its answer, without ASGI.

Owns what a request may be before it is understood: its method, its key, its body within bounds. Everything else that
clients ask for goes to the wrapped ASGI application.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from ppd_proxy.admission.access import check_client
from ppd_proxy.config.sections import Auth
from ppd_proxy.request.director import Director
from ppd_proxy.request.driver import Driver
from ppd_proxy.request.request import Call, Envelope
from ppd_proxy.server.bodies import BODY_KEY, Bodies, Body, ClientLeft, Message, Receive, replay
from ppd_proxy.server.heads import RequestHead
from ppd_proxy.server.paths import with_query
from ppd_proxy.server.render import error_body, error_headers, internal_error
from ppd_proxy.server.reply import ClientReply
from ppd_wire.dialects.dialects import Dialect
from ppd_wire.errors import BadRequest, ProxyError
from ppd_wire.headers import Headers, bearer

log = logging.getLogger(__name__)

Scope = Message
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
OnEnd = Callable[["ServedGeneration"], None]
"""Told of a request of which nothing is left."""

GENERATION_PATHS: Mapping[str, Dialect] = MappingProxyType({
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
})  # fmt: skip
"""Endpoints that generate."""


class DataPath:
    """Also the ASGI application of everything that is no generation: the wrapped one, with bodies within bounds."""

    def __init__(
        self, app: App, director: Director, auth: Auth, bodies: Bodies, clock: Callable[[], float]
    ) -> None:
        self._app = app
        self._director = director
        self._auth = auth
        self._bodies = bodies
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope["headers"]):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._bodies.read(dict(scope["headers"]), receive)
        except ClientLeft:
            return
        except ProxyError as error:
            self.refuse(scope.get("raw_path") or scope["path"].encode(), error)
            await _fail(send, error)
            return
        scope[BODY_KEY] = body
        try:
            await self._app(scope, replay(body, receive), send)
        finally:
            self._bodies.free(body)

    def begin(self, path: str, head: RequestHead, reply: ClientReply, on_end: OnEnd) -> ServedGeneration | None:
        """A request to one of GENERATION_PATHS, before its body. None: it is refused, and answered."""
        is_known = bool(head.envelope)
        envelope = head.envelope[0] if is_known else _envelope(path, head)
        now = self._clock()
        try:
            if not is_known:
                if head.method != "POST":
                    raise BadRequest(f"{path} takes POST, not {head.method}", status=405)
                check_client(self._auth, envelope.named)
                head.envelope.append(envelope)
            self._bodies.check(head.length)
        except ProxyError as error:
            self.turn_away(Call(envelope, b"", now), error, reply)
            return None
        return ServedGeneration(self, self._bodies, envelope, now, reply, on_end)

    def turn_away(self, call: Call, error: ProxyError, reply: ClientReply) -> None:
        """Answer a request that gets no further than its bytes; the rest of its body is nobody's."""
        own_headers = self._director.refuse(call, error)
        reply.keep_alive = False
        reply.fail(error, own_headers)

    def serve(self, call: Call, reply: ClientReply, on_end: Callable[[Exception | None], None]) -> Driver:
        """Answer a request that is here whole."""
        return self._director.serve(call, reply, on_end)

    def ended(self, call: Call, reply: ClientReply, error: Exception | None) -> None:
        """Nothing is left of a request that was served."""
        if error is not None:  # the last boundary: a bug must still give the client a status
            log.error("request failed path=%s", call.envelope.path.decode(), exc_info=error)
            if not reply.status:
                reply.fail(internal_error(), [(b"x-ppd-decision", b"none;reason=internal_error;turn=1")])
        self._bodies.free(call.body)

    def refuse(self, path: bytes, error: ProxyError) -> tuple[Headers, bytes]:
        """Count and log a request that gets no further than its connection; the answer's headers and body."""
        endpoint = path.partition(b"?")[0]
        dialect = GENERATION_PATHS.get(endpoint.decode("latin-1"), "chat")
        envelope = Envelope(path=path, endpoint=endpoint, dialect=dialect, headers=[], named={}, client_key="")
        own_headers = self._director.refuse(Call(envelope, b"", self._clock()), error)
        return [*error_headers(error), *own_headers], error_body(error, dialect)


class ServedGeneration:
    """One request to a generation endpoint on its connection, from its head to its end."""

    __slots__ = (
        "_bodies", "_body", "_call", "_data_path", "_envelope", "_on_end", "_received_at", "driver", "reply",
    )  # fmt: skip

    def __init__(
        self,
        data_path: DataPath,
        bodies: Bodies,
        envelope: Envelope,
        received_at: float,
        reply: ClientReply,
        on_end: OnEnd,
    ) -> None:
        self._data_path = data_path
        self._bodies = bodies
        self._envelope = envelope
        self._received_at = received_at
        self._on_end = on_end
        self._body: Body | None = None
        """What arrives in parts, until it is whole."""
        self._call: Call | None = None
        """None until its body is here, whole or refused."""
        self.reply = reply
        self.driver: Driver | None = None
        """Whoever answers it, from when it is here whole to its end."""

    def feed(self, part: bytes, *, is_whole: bool) -> None:
        """What has arrived of the body. The last part of it starts the request."""
        if self._call is not None:
            return
        try:
            if self._body is None and is_whole:
                whole: bytes | None = self._bodies.hold(part)
            else:
                whole = self._feed(part, is_whole=is_whole)
        except ProxyError as error:
            self._body, self._call = None, Call(self._envelope, b"", self._received_at)
            self._data_path.turn_away(self._call, error, self.reply)
            return
        if whole is not None:
            self._body, self._call = None, Call(self._envelope, whole, self._received_at)
            self.driver = self._data_path.serve(self._call, self.reply, self._ended)

    def _feed(self, part: bytes, *, is_whole: bool) -> bytes | None:
        if self._body is None:
            self._body = self._bodies.open()
        if not is_whole:
            self.reply.go_on()
        return self._body.feed(part, is_whole=is_whole)

    def _ended(self, error: Exception | None) -> None:
        self.driver = None
        if self._call is not None:
            self._data_path.ended(self._call, self.reply, error)
        self._on_end(self)

    def client_left(self) -> None:
        if self.reply.disconnected:
            return  # it sends no more, and now its connection is gone
        self.reply.disconnected = not self.reply.response_complete
        if self._body is not None:
            self._body.drop()
            self._body = None
        elif self.driver is not None:
            self.driver.client_left()


def _envelope(path: str, head: RequestHead) -> Envelope:
    named = dict(head.fields)
    return Envelope(
        path=with_query(path.encode(), head.query),
        endpoint=path.encode(),
        dialect=GENERATION_PATHS[path],
        headers=head.fields,
        named=named,
        client_key=(bearer(named) or named.get(b"authorization", b"")).decode("latin-1"),
    )


def _has_body(headers: Headers) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in headers)


async def _fail(send: Send, error: ProxyError) -> None:
    body = error_body(error)
    headers = [*error_headers(error), (b"connection", b"close"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
