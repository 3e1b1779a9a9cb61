"""What goes into an exchange and what comes out: events of one phase each, commands for the caller.

Frozen values only; `core/exchange.py` gives them meaning, `director.py` carries the commands out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ppd_proxy.core.types import Engine, Plan, Reason
from ppd_proxy.errors import EngineFailure, ProxyError

LegKind = Literal["prefill", "decode", "release"]
Deadline = Literal["prefill", "first_token", "idle", "release"]


# -- events --


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, and what its handoff says about cancelling and reuse (see handoff/rules.py)."""

    plan: Plan
    holds_kv: bool = False
    can_cut_prefill: bool = True
    is_rebindable: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    error: ProxyError


@dataclass(frozen=True, slots=True)
class FirstByte:
    """The first decisive event of a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegEnded:
    """A complete answer. `is_client_fault`: a status of 500 whose body says that the request itself is wrong.
    `has_kv`: a prefill answer that handed something over."""

    status: int
    is_client_fault: bool = False
    has_kv: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LegFailed:
    """A leg without a complete answer. `was_sent`: the engine may have seen the request."""

    error: EngineFailure
    was_sent: bool = True


@dataclass(frozen=True, slots=True)
class ClientGone:
    pass


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    deadline: Deadline


Event = Planned | Refused | FirstByte | LegEnded | LegFailed | ClientGone | DeadlinePassed


# -- commands --


@dataclass(frozen=True, slots=True, kw_only=True)
class MakePlan:
    """Answered by Planned or Refused. `failed` engines are to be avoided where others exist, `unreachable` ones
    altogether. `keep` is the prefill engine whose KV waits for another decode engine."""

    failed: frozenset[str] = frozenset()
    unreachable: frozenset[str] = frozenset()
    cause: Reason | None = None
    keep: Engine | None = None


@dataclass(frozen=True, slots=True)
class OpenLeg:
    kind: LegKind


@dataclass(frozen=True, slots=True)
class ArmDeadline:
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class AbortLeg:
    pass


@dataclass(frozen=True, slots=True)
class StartResponse:
    pass


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """Send the leg's complete answer, `status` and body as the engine gave them."""

    status: int


@dataclass(frozen=True, slots=True)
class EndResponse:
    pass


@dataclass(frozen=True, slots=True)
class BreakResponse:
    error: ProxyError


@dataclass(frozen=True, slots=True)
class Respond:
    error: ProxyError


@dataclass(frozen=True, slots=True)
class Release:
    """The plan's reservations end here."""


@dataclass(frozen=True, slots=True)
class NoteStranded:
    """Held KV could not be given back: the prefill engine keeps it until its lease ends."""


Command = (
    MakePlan | OpenLeg | ArmDeadline | AbortLeg | StartResponse | RelayAnswer | EndResponse | BreakResponse | Respond
    | Release | NoteStranded
)  # fmt: skip
Commands = tuple[Command, ...]
