"""Both sides of the driver: the client that gets the answer, and the director's, which knows plans and bodies."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from ppd_core.fleet.echoes import Expected
from ppd_core.policy.plan import Plan
from ppd_proxy.core.signals import LegFailed, LegKind, LegRefused, MakePlan, Planned, Refused
from ppd_proxy.upstream.leg import Leg, StreamWriter
from ppd_proxy.upstream.pool import Origin
from ppd_wire.dialects.dialects import Dialect
from ppd_wire.dialects.relay import Relay
from ppd_wire.errors import EngineFailure, ProxyError
from ppd_wire.headers import Headers
from ppd_wire.requests.asked import NOTHING, Asked


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


class LegRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a leg sends, and how its answer is known. `is_retriable`, `is_fresh`: see `Leg.open`."""

    origin: Origin
    head: bytes
    body: bytes
    relay: Relay | None
    dialect: Dialect
    asked: Asked = NOTHING
    is_retriable: bool
    is_fresh: bool = False
    expected: Expected | None = None


class Shaper(Protocol):
    """The director's side: plans, bodies, and what an answer looks like to the client."""

    def make_plan(self, command: MakePlan) -> Planned | Refused: ...

    def shape(self, kind: LegKind, plan: Plan, params: bytes | None) -> LegRequest: ...

    def own_headers(self) -> Headers: ...

    def response_headers(self, leg: Leg) -> Headers: ...

    def response_body(self, leg: Leg) -> bytes | None:
        """None for an error that the client may not see."""

    def unseen_error(self, leg: Leg, status: int) -> EngineFailure:
        """What the client gets instead."""

    def broken_by_asking(self, leg: Leg) -> LegFailed | LegRefused | None:
        """What it means where an engine refused what the proxy asked for beside the client's wishes."""

    def two_prompts(self, leg: Leg) -> LegFailed | None:
        """What it means where a whole answer is to another prompt than the prefill leg's; a stream's relay sees it."""

    def answer_complete(self, leg: Leg) -> None:
        """The answer is whole; called before its last bytes leave, so that the next turn finds it remembered."""

    def handed_over(self, *, has_kv: bool, prompt_tokens: int | None) -> None:
        """The prefill answer is good; `prompt_tokens` as it counts them, None when it does not."""

    def release(self) -> None: ...

    def given_back(self) -> None:
        """A handoff is given up; a leg is open to make the decode engine free what the prefill engine holds."""

    def stranded(self) -> None: ...

    def leg_ended(self, plan: Plan, kind: LegKind, failure: str | None) -> None:
        """A complete answer, or none in time; `failure` says what is wrong with it if that is the engine's fault."""

    def leg_failed(self, plan: Plan, kind: LegKind, event: LegFailed) -> None: ...
