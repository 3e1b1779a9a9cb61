"""What a decision depends on: the situation outside the request, and what that makes of the request's demand. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ppd_core.fleet.engine import Engine, FleetView, Loads
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.placement import find_home
from ppd_core.policy.plan import DecisionReason, Demand, Mode


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything outside the request that a decision depends on.

    `failed` engines are taken only if there is no other, and if none but they are left, only where it `may_repeat`;
    `unreachable` ones are not taken at all. `shunned` engines failed their last answers: they are taken where the
    others of their role failed this very request, or are shunned too; those in `trials` come first, to see whether
    they answer again. `cause` says why a request is planned again, `tried_pairs` are (prefill id, decode id) that had
    it; `keep` is a prefill engine whose KV waits for another decode engine. `distrust` counts for each plan, also
    after a failure.
    """

    mode: Mode
    fleet: FleetView
    loads: Loads = msgspec.field(default_factory=dict)
    trust_direct: bool = False
    failed: frozenset[str] = frozenset()
    unreachable: frozenset[str] = frozenset()
    shunned: frozenset[str] = frozenset()
    trials: frozenset[str] = frozenset()
    cause: DecisionReason | None = None
    keep: Engine | None = None
    tried_pairs: frozenset[tuple[str, str]] = frozenset()
    may_repeat: bool = True
    distrust: Distrust = Distrust()

    def reachable(self, engines: tuple[Engine, ...]) -> Sequence[Engine]:
        if not self.unreachable:
            return engines
        return [engine for engine in engines if engine.id not in self.unreachable]


class Case(msgspec.Struct, frozen=True, gc=False):
    """A demand in a situation. Of the `decodes` that can be reached, `holder` holds the conversation's KV; `home` is
    the same engine where that KV is trusted."""

    demand: Demand
    situation: Situation
    decodes: Sequence[Engine]
    holder: Engine | None = None
    home: Engine | None = None
    held_tokens: int = 0


def case_of(demand: Demand, situation: Situation) -> Case:
    decodes, home = situation.reachable(situation.fleet.decode), demand.history.home
    if home is None:
        return Case(demand, situation, decodes)
    holder = find_home(home, decodes)
    trusted = None if situation.distrust.is_home_bad(home) else holder
    return Case(demand, situation, decodes, holder, trusted, home.held_tokens)
