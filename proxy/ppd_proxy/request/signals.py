"""What goes into an exchange and what comes out: events of one phase each, commands for the caller.

Frozen values only; `exchange.py` gives them meaning, `driver.py` carries the commands out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ppd_core.fleet.engine import Engine
from ppd_core.policy.plan import DecisionReason, Plan
from ppd_proxy.upstream.events import LegEvent, LegKind
from ppd_wire.errors import ProxyError

Deadline = Literal["prefill", "first_token", "idle", "release"]


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a request waits, in seconds: for a prefill answer, for the first token, for the next one, and for a
    decode engine to take KV that nobody wants any more."""

    prefill_s: float
    first_token_s: float
    idle_s: float
    release_s: float

    def of(self, deadline: Deadline) -> float:
        match deadline:
            case "prefill":
                return self.prefill_s
            case "first_token":
                return self.first_token_s
            case "idle":
                return self.idle_s
            case "release":
                return self.release_s


# -- events --


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and what its handoff says about cancelling and reuse (see ppd_core/handoff/rules.py)."""

    plan: Plan
    holds_kv: bool = False
    can_cut_prefill: bool = True
    is_rebindable: bool = False


class Refused(msgspec.Struct, frozen=True):
    error: ProxyError


class LegRefused(msgspec.Struct, frozen=True):
    """The decode engine refused, before it took anything, what the proxy asked for beside the client's wishes; that
    is not asked for any more. What it was to take may be gone: vLLM 0.32 has KV freed for requests that it rejects
    (entrypoints/generate/base/serving.py)."""


class ClientGone(msgspec.Struct, frozen=True):
    pass


class DeadlinePassed(msgspec.Struct, frozen=True):
    deadline: Deadline


class Stopping(msgspec.Struct, frozen=True):
    """The proxy ends and waits for no answer any more."""

    error: ProxyError


Event = LegEvent | LegRefused | Planned | Refused | ClientGone | DeadlinePassed | Stopping


# -- commands --


class MakePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Answered by Planned or Refused. `failed` engines are to be avoided where others exist, `unreachable` ones
    altogether; pairs in `tried_pairs` failed together. `may_repeat`: where no engine is left that has not failed, one
    that has may get it again. `is_free`: the try counts against no limit. `keep` is the prefill engine whose KV waits
    for another decode engine."""

    failed: frozenset[str] = frozenset()
    unreachable: frozenset[str] = frozenset()
    cause: DecisionReason | None = None
    keep: Engine | None = None
    tried_pairs: frozenset[tuple[str, str]] = frozenset()
    may_repeat: bool = True
    is_free: bool = False


class OpenLeg(msgspec.Struct, frozen=True):
    """`is_apart`: a release leg after the decode engine refused the request. What the prefill engine held may be gone
    and its blocks others' by then, so that what the leg pulls must be found by nobody."""

    kind: LegKind
    is_apart: bool = False


class ArmDeadline(msgspec.Struct, frozen=True):
    deadline: Deadline


class AbortLeg(msgspec.Struct, frozen=True):
    pass


class StartResponse(msgspec.Struct, frozen=True):
    pass


class RelayAnswer(msgspec.Struct, frozen=True):
    """Send the leg's complete answer, `status` and body as the engine gave them."""

    status: int


class EndResponse(msgspec.Struct, frozen=True):
    pass


class BreakResponse(msgspec.Struct, frozen=True):
    error: ProxyError


class Respond(msgspec.Struct, frozen=True):
    error: ProxyError


class Release(msgspec.Struct, frozen=True):
    """The plan's reservations end here."""


class NoteStranded(msgspec.Struct, frozen=True):
    """Held KV could not be given back: the prefill engine keeps it until its lease ends."""


Command = (
    MakePlan | OpenLeg | ArmDeadline | AbortLeg | StartResponse | RelayAnswer | EndResponse | BreakResponse | Respond
    | Release | NoteStranded
)  # fmt: skip
Commands = tuple[Command, ...]
