"""One try to serve a request: which engines, under which names, and what is reserved for it. A pure value."""

from __future__ import annotations

import msgspec

from ppd_core.conversation.history import Home
from ppd_core.fleet.load import Reservation
from ppd_core.handoff.rules import Handoff
from ppd_core.policy.plan import Plan
from ppd_wire.requests.asked import Asked


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`key` is 32 hex digits, its own; `engine_id` is the `X-Request-Id` of its legs, `salt` the decode engine's cache
    salt ("" for none). `home` is the conversation's, where the decode leg finds its KV there. `asked` is what the
    decode leg asks for beside the client's wishes; `is_scored`: so that its answer can be sampled."""

    plan: Plan
    handoff: Handoff
    key: str
    engine_id: str
    salt: str
    home: Home | None
    asked: Asked
    is_scored: bool
    is_retry: bool
    reservations: tuple[Reservation, ...]

    @property
    def hidden_id(self) -> bytes:
        """What the client never sees."""
        return self.engine_id.encode()

    def filled_by(self, *, has_kv: bool | None) -> tuple[str, ...]:
        """The prefill engines whose KV the answer relies on. `has_kv`: see `Record`."""
        before = self.home.filled_by if self.home is not None else ()
        prefill = self.plan.prefill
        if prefill is None or has_kv is False or prefill.id in before:
            return before
        return (*before, prefill.id)

    def release(self) -> None:
        """Its engines' loads no longer count it; as often as is convenient."""
        for reservation in self.reservations:
            reservation.release()
