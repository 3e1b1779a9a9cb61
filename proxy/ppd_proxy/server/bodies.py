"""Reads request bodies: bounded in size and in structure while their bytes arrive, and counted as held from then on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ppd_proxy.admission.buffered import Buffered
from ppd_proxy.config.sections import Server
from ppd_proxy.server.render import too_large
from ppd_wire.errors import BadRequest, ProxyError, Refusal
from ppd_wire.json.structure import Structure, TooMuch

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

BODY_KEY = "ppd_proxy.body"
"""Where a request's scope has its body, once that was read."""
UNCHECKED_BYTES = 65536
"""Bodies up to here are not looked at before they are decoded: the worst of them takes 2 ms."""


class ClientLeft(Exception):
    """The client closed its connection before its request was complete."""


class Bodies:
    """Every body that was read must be given back with `free` when its request is over."""

    def __init__(self, limits: Server, buffered: Buffered) -> None:
        self._limits = limits
        self._buffered = buffered

    def check(self, length: int | None) -> None:
        """Whether a body may arrive, `length` bytes as it says (None: it does not say). Raises BadRequest (413) for one
        that is too large, NoRoute (503) when all that is held leaves no room for another."""
        self._buffered.check()
        if length is not None and length > self._limits.max_body_bytes:
            raise too_large(self._limits.max_body_bytes)

    def open(self) -> Body:
        """One that arrives in parts."""
        return Body(self._limits, self._buffered)

    def hold(self, body: bytes) -> bytes:
        """One that came at once. Raises as `Body.feed` does."""
        if len(body) > UNCHECKED_BYTES:
            self.open().feed(body, is_whole=True)
        else:
            self._buffered.hold(len(body))
        return body

    async def read(self, named: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body. Raises ClientLeft, and as `check` and `Body.feed` do."""
        declared = named.get(b"content-length")
        self.check(int(declared) if declared is not None else None)
        body = self.open()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                body.drop()
                raise ClientLeft
            whole = body.feed(message.get("body", b""), is_whole=not message.get("more_body"))
            if whole is not None:
                return whole

    def free(self, body: bytes) -> None:
        self._buffered.free(len(body))


class Body:
    """One body while it arrives, bounded in size and in structure."""

    __slots__ = ("_buffered", "_limits", "_parts", "_size_bytes", "_structure")

    def __init__(self, limits: Server, buffered: Buffered) -> None:
        self._limits = limits
        self._buffered = buffered
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._structure: Structure | None = None

    def feed(self, part: bytes, *, is_whole: bool) -> bytes | None:
        """The whole body once its last part is here. Raises BadRequest (413, 400) as soon as it is known to be too
        large or to have too much structure, NoRoute (503) when there is no room for it; then nothing of it is held."""
        self._size_bytes += len(part)
        self._buffered.hold(len(part))
        self._parts.append(part)
        if self._size_bytes > UNCHECKED_BYTES:
            try:
                self._check(part)
            except ProxyError:
                self.drop()
                raise
        if not is_whole:
            return None
        return part if len(self._parts) == 1 else b"".join(self._parts)

    def drop(self) -> None:
        """The rest will not come."""
        self._buffered.free(self._size_bytes)
        self._parts.clear()

    def _check(self, part: bytes) -> None:
        limits = self._limits
        if self._size_bytes > limits.max_body_bytes:
            raise too_large(limits.max_body_bytes)
        self._buffered.check()
        if self._structure is None:
            self._structure = Structure(max_depth=limits.max_json_depth, max_values=limits.max_json_values)
            part = b"".join(self._parts)
        excess = self._structure.feed(part)
        if excess is not None:
            raise _too_complex(excess)


def replay(body: bytes, receive: Receive) -> Receive:
    """An ASGI `receive` that begins with a whole body; what follows comes from the server's own."""
    rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return rest.pop() if rest else await receive()

    return replayed


def _too_complex(excess: TooMuch) -> BadRequest:
    flag = {"levels of nesting": " (--max-json-depth)", "values": " (--max-json-values)"}.get(excess.what, "")
    return BadRequest(
        f"the request body has {excess.found} {excess.what} up to here, and at most {excess.limit} are taken{flag}",
        reason=Refusal.BODY_TOO_COMPLEX,
    )
