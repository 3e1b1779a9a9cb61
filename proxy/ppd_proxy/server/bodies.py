"""Reads request bodies: bounded in size and in structure while their bytes arrive, and counted as held from then on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ppd_proxy.core.buffered import Buffered
from ppd_proxy.core.structure import Excess, Structure
from ppd_proxy.core.types import Reason
from ppd_proxy.errors import BadRequest
from ppd_proxy.sections import Server
from ppd_proxy.server.render import too_large

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

    async def read(self, named: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body. Raises ClientLeft, BadRequest (413, 400) as soon as it is known to be too large or to have
        too much structure, NoRoute (503) when all that is held leaves no room for it."""
        limit_bytes = self._limits.max_body_bytes
        self._buffered.check()
        declared = named.get(b"content-length")
        if declared is not None and int(declared) > limit_bytes:
            raise too_large(limit_bytes)
        parts: list[bytes] = []
        size_bytes = 0
        structure: Structure | None = None
        is_whole = False
        try:
            while not is_whole:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                part = message.get("body", b"")
                size_bytes += len(part)
                self._buffered.hold(len(part))
                parts.append(part)
                if size_bytes > UNCHECKED_BYTES:
                    if size_bytes > limit_bytes:
                        raise too_large(limit_bytes)
                    self._buffered.check()
                    if structure is None:
                        structure = self._structure()
                        part = b"".join(parts)
                    excess = structure.feed(part)
                    if excess is not None:
                        raise _too_complex(excess)
                is_whole = not message.get("more_body")
        except BaseException:
            self._buffered.free(size_bytes)
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def free(self, body: bytes) -> None:
        self._buffered.free(len(body))

    def _structure(self) -> Structure:
        return Structure(max_depth=self._limits.max_json_depth, max_values=self._limits.max_json_values)


def replay(body: bytes, receive: Receive) -> Receive:
    """An ASGI `receive` that begins with a whole body; what follows comes from the server's own."""
    rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return rest.pop() if rest else await receive()

    return replayed


def _too_complex(excess: Excess) -> BadRequest:
    flag = {"levels of nesting": " (--max-json-depth)", "values": " (--max-json-values)"}.get(excess.what, "")
    return BadRequest(
        f"the request body has {excess.found} {excess.what} up to here, and at most {excess.limit} are taken{flag}",
        reason=Reason.BODY_TOO_COMPLEX,
    )
