"""Which route a request takes, and why: the one place to read for "why did this request go there?".

Pure: a demand and a situation in, a plan or NoRoute out. Reasons are DecisionReasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import msgspec

from ppd_core.conversation.history import Home
from ppd_core.fleet.engine import Engine, FleetView, Loads
from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.placement import find_home, is_overloaded, least_loaded
from ppd_core.policy.plan import DecisionReason, Demand, Mode, Plan
from ppd_wire.errors import NoRoute


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


def decide(demand: Demand, situation: Situation) -> Plan:
    """The plan for one request; raises NoRoute when no engine can take it."""
    plan = _plan(demand, situation)
    worn = situation.failed | situation.shunned
    if worn and _is_worn(plan, worn):
        plan = _elsewhere(demand, situation, plan, worn) or plan
    if situation.cause is not None and not situation.may_repeat:
        engine = (plan.prefill if situation.cause is DecisionReason.PREFILL_FAILED else None) or plan.decode
        if engine.id in situation.failed:
            raise NoRoute("every engine that could take the request has failed it", reason=situation.cause)
    return plan


def _is_worn(plan: Plan, worn: frozenset[str]) -> bool:
    return plan.decode.id in worn or (plan.prefill is not None and plan.prefill.id in worn)


def _elsewhere(demand: Demand, situation: Situation, plan: Plan, worn: frozenset[str]) -> Plan | None:
    """The route would take engines that failed, because there are no others of their role: one that takes none.

    It is the one of a fleet in which they are down. Decode engines without a trusted pair serve alone then, once the
    others had their second chance.
    """
    turn, whole = demand.history.turn, _not_splittable(demand)
    aggregated = _aggregated(demand, situation)
    if aggregated is not None and aggregated.id not in worn:
        down = DecisionReason.NO_DECODE_ENGINE if plan.decode.id in worn else DecisionReason.NO_PREFILL_ENGINE
        reason = situation.cause or (DecisionReason.HOME_UNHEALTHY if plan.route == "direct" else down)
        return Plan(route="aggregated", reason=reason, turn=turn, decode=aggregated)
    has_bad_pairs = situation.distrust.is_split or bool(situation.distrust.pairs)
    is_done_with = plan.decode.id in situation.shunned or (plan.decode.id in worn and not situation.may_repeat)
    if whole is None and not (has_bad_pairs and is_done_with):
        return None
    decodes = _usable(situation.fleet.decode, situation)
    alone = _by_itself(demand, situation, decodes, whole or DecisionReason.SPLIT_DISTRUSTED)
    return alone if alone is not None and alone.decode.id not in worn else None


def _plan(demand: Demand, situation: Situation) -> Plan:
    whole = _not_splittable(demand)
    if whole is not None:
        return _unsplit(demand, situation, whole)
    reason = situation.cause
    decodes = _usable(situation.fleet.decode, situation)
    home = _trusted_home(demand, situation, decodes)
    if reason is None:
        reason = _why_not_direct(demand, situation, home, decodes)
        if reason is None and home is not None:
            return Plan(route="direct", reason=DecisionReason.KNOWN_HISTORY, turn=demand.history.turn, decode=home)
    return _split(demand, situation, decodes, home, reason or DecisionReason.FIRST_TURN)


def _not_splittable(demand: Demand) -> DecisionReason | None:
    if not demand.is_split_endpoint:
        return DecisionReason.ENDPOINT_NOT_SPLIT
    if demand.is_multi_sequence:
        return DecisionReason.MULTI_SEQUENCE
    if demand.wants_prompt_logprobs:
        return DecisionReason.PROMPT_LOGPROBS
    if demand.prompt_depends_on_output:
        return DecisionReason.PROMPT_DEPENDS_ON_OUTPUT
    return None


def _why_not_direct(
    demand: Demand, situation: Situation, home: Engine | None, decodes: Sequence[Engine]
) -> DecisionReason | None:
    """None when the request goes straight to its home."""
    history = demand.history
    if not history.is_complete:
        return DecisionReason.HISTORY_UNKNOWN if history.has_answers else DecisionReason.FIRST_TURN
    if situation.mode == "pd":
        return DecisionReason.MODE_PD
    if home is None:
        return DecisionReason.HOME_GONE if find_home(history.home, decodes) is None else DecisionReason.HOME_DISTRUSTED
    if situation.distrust.is_direct:
        return DecisionReason.DIRECT_DISTRUSTED
    if not _is_direct_safe(home, situation):
        return DecisionReason.HANDOFF_NOT_DIRECT_SAFE
    if home.id in situation.shunned and any(other.id not in situation.shunned for other in decodes):
        return DecisionReason.HOME_UNHEALTHY
    if is_overloaded(home, _held(history.home), decodes, situation.loads):
        return DecisionReason.HOME_OVERLOADED
    return None


def _split(
    demand: Demand, situation: Situation, decodes: Sequence[Engine], home: Engine | None, reason: DecisionReason
) -> Plan:
    """Prefill leg, then decode leg; the home keeps its conversation where load allows, for its prefix cache."""
    prefills = (situation.keep,) if situation.keep is not None else _usable(situation.fleet.prefill, situation)
    held_by = find_home(demand.history.home, decodes)
    anyway = pair = _pair(demand, situation, prefills, decodes, _preferred(demand, situation, held_by, decodes))
    is_bad = anyway is not None and _is_bad(anyway, situation)
    if is_bad or held_by is not home:
        preferred = _preferred(demand, situation, home, decodes)
        pair = _pair(demand, situation, prefills, decodes, preferred, is_trusted=True)
    if is_bad and pair is not None and reason is not situation.cause and reason is not DecisionReason.HOME_DISTRUSTED:
        reason = DecisionReason.PAIR_DISTRUSTED
    if pair is not None:
        return Plan(route="pd", reason=reason, turn=demand.history.turn, prefill=pair[0], decode=pair[1])
    if reason is DecisionReason.HOME_UNHEALTHY and (alone := _alone(demand, situation, decodes)) is not None:
        return Plan(route="direct", reason=reason, turn=demand.history.turn, decode=alone)
    if reason is DecisionReason.HOME_OVERLOADED and home is not None and not situation.fleet.aggregated:
        return Plan(route="direct", reason=DecisionReason.KNOWN_HISTORY, turn=demand.history.turn, decode=home)
    if anyway is not None:
        reason = DecisionReason.SPLIT_DISTRUSTED
    plan = _unpaired(demand, situation, decodes, reason) if reason in _OF_DISTRUST else None
    if plan is None and anyway is not None:  # an answer that may be wrong, and says so, rather than none
        turn = demand.history.turn
        plan = Plan(route="pd", reason=DecisionReason.DISTRUSTED_ANYWAY, turn=turn, prefill=anyway[0], decode=anyway[1])
    return plan or _fall_back(demand, situation, _missing(prefills, decodes))


_OF_DISTRUST = frozenset(
    {DecisionReason.SPLIT_DISTRUSTED, DecisionReason.HOME_DISTRUSTED, DecisionReason.DIRECT_DISTRUSTED}
)


def _unpaired(demand: Demand, situation: Situation, decodes: Sequence[Engine], reason: DecisionReason) -> Plan | None:
    """No pair is trusted: an aggregated engine, else a decode engine that computes the prompt itself."""
    aggregated = _aggregated(demand, situation)
    if aggregated is not None:
        return Plan(route="aggregated", reason=reason, turn=demand.history.turn, decode=aggregated)
    return _by_itself(demand, situation, decodes, reason)


def _by_itself(demand: Demand, situation: Situation, decodes: Sequence[Engine], reason: DecisionReason) -> Plan | None:
    """A decode engine computes the prompt itself."""
    alone = _alone(demand, situation, decodes)
    if alone is None:
        return None
    if reason in _OF_DISTRUST and situation.distrust.is_direct and demand.history.known_answers:
        reason = DecisionReason.DISTRUSTED_ANYWAY
    return Plan(route="direct", reason=reason, turn=demand.history.turn, decode=alone)


def _preferred(demand: Demand, situation: Situation, home: Engine | None, decodes: Sequence[Engine]) -> Engine | None:
    """The home, unless it failed (this request, or all the last ones) or carries too much. A shared system prompt has
    no home of its own."""
    if home is None or demand.history.known_answers == 0 or home.id in situation.failed or home.id in situation.shunned:
        return None
    if is_overloaded(home, _held(demand.history.home), decodes, situation.loads):
        return None
    return home


def _pair(
    demand: Demand,
    situation: Situation,
    prefills: Sequence[Engine],
    decodes: Sequence[Engine],
    preferred: Engine | None,
    *,
    is_trusted: bool = False,
) -> tuple[Engine, Engine] | None:
    """The least loaded decode engine that has a partner (`is_trusted`: that it may be used with), and its least loaded
    partner."""
    partners = {
        decode.id: [
            each
            for each in prefills
            if HANDOFFS[decode.handoff].can_pair(each, decode)
            and not (is_trusted and _is_bad((each, decode), situation))
        ]
        for decode in decodes
    }
    candidates = [decode for decode in decodes if partners[decode.id]]
    decode = preferred if preferred in candidates else None
    decode = decode or _least(candidates, demand, situation, _with_worn_partners(partners, situation))
    if decode is None:
        return None
    tried = {each.id for each in partners[decode.id] if (each.id, decode.id) in situation.tried_pairs}
    prefill = _least(partners[decode.id], demand, situation, situation.failed | tried)
    return (prefill, decode) if prefill is not None else None


def _with_worn_partners(partners: dict[str, list[Engine]], situation: Situation) -> frozenset[str]:
    """The engines that failed the request, and those whose partners all did or are shunned."""
    bad = situation.failed | situation.shunned
    if not bad:
        return bad
    return situation.failed | {id_ for id_, engines in partners.items() if all(each.id in bad for each in engines)}


def _least(
    engines: Sequence[Engine], demand: Demand, situation: Situation, avoid: frozenset[str] | None = None
) -> Engine | None:
    """The least loaded; those that failed the request (or all of `avoid`) last."""
    return least_loaded(
        engines,
        situation.loads,
        demand.spread_key,
        situation.failed if avoid is None else avoid,
        shun=situation.shunned,
        first=situation.trials,
    )


def _unsplit(demand: Demand, situation: Situation, reason: DecisionReason) -> Plan:
    """A request that must not carry KV: an aggregated engine, else a decode engine that is safe without a handoff."""
    aggregated = _aggregated(demand, situation)
    if aggregated is not None:
        return Plan(route="aggregated", reason=reason, turn=demand.history.turn, decode=aggregated)
    decodes = _usable(situation.fleet.decode, situation)
    decode = _alone(demand, situation, decodes)
    if decode is not None:
        return Plan(route="direct", reason=reason, turn=demand.history.turn, decode=decode)
    if not decodes:
        raise NoRoute("no aggregated and no decode engine is up", reason=DecisionReason.NO_DECODE_ENGINE)
    if reason is DecisionReason.ENDPOINT_NOT_SPLIT:
        reason = DecisionReason.HANDOFF_NOT_DIRECT_SAFE
    raise NoRoute(
        "this request cannot be split, no aggregated engine is up, and no decode engine is safe for direct requests "
        "(start one with --aggregated, or use --trust-direct if the decode engines' connector takes them)",
        reason=reason,
    )


def _alone(demand: Demand, situation: Situation, decodes: Sequence[Engine]) -> Engine | None:
    """The decode engine that serves a request without a handoff, where one is safe without."""
    safe = [engine for engine in decodes if _is_direct_safe(engine, situation)]
    decode = _preferred(demand, situation, _trusted_home(demand, situation, safe), safe)
    return decode or _least(safe, demand, situation)


def _fall_back(demand: Demand, situation: Situation, reason: DecisionReason) -> Plan:
    """No pair of engines: an aggregated engine, else 503."""
    aggregated = _aggregated(demand, situation)
    if aggregated is None:
        raise NoRoute(f"no route: {_EXPLAINED[reason]}, and no aggregated engine is up", reason=reason)
    return Plan(route="aggregated", reason=reason, turn=demand.history.turn, decode=aggregated)


def _missing(prefills: Sequence[Engine], decodes: Sequence[Engine]) -> DecisionReason:
    if not prefills:
        return DecisionReason.NO_PREFILL_ENGINE
    return DecisionReason.NO_MATCHING_PAIR if decodes else DecisionReason.NO_DECODE_ENGINE


_EXPLAINED = MappingProxyType({
    DecisionReason.NO_PREFILL_ENGINE: "no prefill engine is up",
    DecisionReason.NO_DECODE_ENGINE: "no decode engine is up",
    DecisionReason.NO_MATCHING_PAIR: "no prefill and decode engine share a handoff",
})  # fmt: skip


def _aggregated(demand: Demand, situation: Situation) -> Engine | None:
    return _least(_usable(situation.fleet.aggregated, situation), demand, situation)


def _usable(engines: tuple[Engine, ...], situation: Situation) -> Sequence[Engine]:
    if not situation.unreachable:
        return engines
    return [engine for engine in engines if engine.id not in situation.unreachable]


def _trusted_home(demand: Demand, situation: Situation, decodes: Sequence[Engine]) -> Engine | None:
    home = demand.history.home
    if home is None or situation.distrust.is_home_bad(home):
        return None
    return find_home(home, decodes)


def _is_bad(pair: tuple[Engine, Engine], situation: Situation) -> bool:
    return situation.distrust.is_pair_bad(pair[0].id, pair[1].id)


def _is_direct_safe(engine: Engine, situation: Situation) -> bool:
    return situation.trust_direct or HANDOFFS[engine.handoff].is_direct_safe(engine)


def _held(home: Home | None) -> int:
    return home.held_tokens if home is not None else 0
