"""Both sides of the driver: the client that gets the answer, and what its commands mean for a request."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from ppd_proxy.request.ongoing import Ongoing
from ppd_proxy.request.signals import DeadlinePassed, LegRefused, MakePlan, OpenLeg, Planned, Refused
from ppd_proxy.upstream.events import LegEnded, LegFailed
from ppd_proxy.upstream.leg import Leg, StreamWriter
from ppd_proxy.upstream.leg_request import LegRequest
from ppd_wire.errors import EngineFailure, ProxyError
from ppd_wire.headers import Headers


class Client(Protocol):
    """The connection to the client. After it left, every method does nothing."""

    @property
    def status(self) -> int:
        """The status that was sent; 0 before."""

    @property
    def is_lost(self) -> bool:
        """The client left before it was handed the last byte; False where that cannot be known."""

    def start(self, status: int, headers: Headers, data: bytes) -> None:
        """The head of a stream and its first bytes."""

    @property
    def writer(self) -> StreamWriter | None:
        """For stream bytes that need not wait; without one `write` takes them all."""

    def write(self, data: bytes) -> Awaitable[None] | None:
        """To be awaited unless it is None: the client has not taken what was written before."""

    def end(self, data: bytes) -> Awaitable[None] | None:
        """As `write`; the last bytes of a stream, if any."""

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""

    def fail(self, error: ProxyError, headers: Headers) -> None:
        """A whole error answer; nothing was sent before."""

    def break_off(self, before: bytes, error: ProxyError, number: int) -> Awaitable[None] | None:
        """The end of a stream that failed midway: what is left of it, and an error event, its event `number`."""


class Steps(Protocol):
    """What the commands mean for a request: see `serving.py`."""

    def plan(self, ongoing: Ongoing, command: MakePlan) -> Planned | Refused: ...

    def leg(self, ongoing: Ongoing, command: OpenLeg) -> LegRequest: ...

    def judge(
        self, ongoing: Ongoing, leg: Leg, event: LegEnded | LegFailed | DeadlinePassed
    ) -> LegEnded | LegFailed | LegRefused | DeadlinePassed: ...

    def own_headers(self, ongoing: Ongoing) -> Headers: ...

    def response_headers(self, ongoing: Ongoing, leg: Leg) -> Headers: ...

    def response_body(self, ongoing: Ongoing, leg: Leg) -> bytes | None: ...

    def unseen_error(self, ongoing: Ongoing, leg: Leg, status: int) -> tuple[EngineFailure, Headers]: ...

    def complete(self, ongoing: Ongoing, leg: Leg) -> None: ...

    def release(self, ongoing: Ongoing) -> None: ...

    def give_back(self) -> None: ...

    def strand(self) -> None: ...
