"""Which route a request takes, and why: the one place to read for "why did this request go there?".

Pure: a demand and a situation in, a plan or NoRoute out. Each route has its candidates (`candidates`), which pass its
filters (`filters`) and are ranked by a score (`placement`); here stands which route comes before which. Reasons are the
words of `plan.DecisionReason`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from ppd_core.fleet.engine import Engine
from ppd_core.policy.candidates import best_aggregated, best_alone, best_pair, direct_home
from ppd_core.policy.filters import handoff, is_pair, is_trusted_pair
from ppd_core.policy.plan import DecisionReason, Demand, Plan, Route
from ppd_core.policy.situation import Case, Situation, case_of
from ppd_wire.errors import NoRoute


def decide(demand: Demand, situation: Situation) -> Plan:
    """The plan for one request; raises NoRoute when no engine can take it."""
    case = case_of(demand, situation)
    whole = handoff(case)
    plan = _split_or_direct(case) if whole is None else _whole(case, whole)
    worn = situation.failed | situation.shunned
    if worn and _is_worn(plan, worn):
        plan = next((each for each in _instead(case, whole, plan) if each and not _is_worn(each, worn)), plan)
    if situation.cause is not None and not situation.may_repeat:
        engine = (plan.prefill if situation.cause is DecisionReason.PREFILL_FAILED else None) or plan.decode
        if engine.id in situation.failed:
            raise NoRoute("every engine that could take the request has failed it", reason=situation.cause)
    return plan


def _is_worn(plan: Plan, worn: frozenset[str]) -> bool:
    return plan.decode.id in worn or (plan.prefill is not None and plan.prefill.id in worn)


def _instead(case: Case, whole: DecisionReason | None, plan: Plan) -> Iterator[Plan | None]:
    """The plan takes engines that failed, because there are no others of their role: those of a fleet in which they
    are down. Decode engines without a trusted pair serve alone then, once the others had their second chance."""
    situation, decode_id = case.situation, plan.decode.id
    worn = situation.failed | situation.shunned
    down = DecisionReason.NO_DECODE_ENGINE if decode_id in worn else DecisionReason.NO_PREFILL_ENGINE
    yield _aggregated(case, situation.cause or (DecisionReason.HOME_UNHEALTHY if plan.route == "direct" else down))
    has_bad_pairs = situation.distrust.is_split or bool(situation.distrust.pairs)
    is_done_with = decode_id in situation.shunned or (decode_id in worn and not situation.may_repeat)
    if whole is not None or (has_bad_pairs and is_done_with):
        yield _alone(case, whole or DecisionReason.SPLIT_DISTRUSTED)


def _split_or_direct(case: Case) -> Plan:
    home = case.situation.cause or direct_home(case)
    if isinstance(home, Engine):
        return _plan(case, "direct", DecisionReason.KNOWN_HISTORY, home)
    return _split(case, home)


def _split(case: Case, reason: DecisionReason) -> Plan:
    """Prefill leg, then decode leg; the home keeps its conversation where load allows, for its prefix cache."""
    situation = case.situation
    prefills = (situation.keep,) if situation.keep is not None else situation.reachable(situation.fleet.prefill)
    anyway = pair = best_pair(case, prefills, case.holder, is_pair)
    is_bad = anyway is not None and not is_trusted_pair(*anyway, situation)
    if is_bad or case.holder is not case.home:
        pair = best_pair(case, prefills, case.home, is_trusted_pair)
    if pair is None:
        return next(filter(None, _without_pair(case, reason, prefills, anyway)))
    if is_bad and reason is not situation.cause and reason is not DecisionReason.HOME_DISTRUSTED:
        reason = DecisionReason.PAIR_DISTRUSTED
    return _plan(case, "pd", reason, pair[1], pair[0])


def _without_pair(
    case: Case, reason: DecisionReason, prefills: Sequence[Engine], untrusted: tuple[Engine, Engine] | None
) -> Iterator[Plan | None]:
    """There is no pair, or none but untrusted ones: what else there may be, the best first. Raises NoRoute."""
    if reason is DecisionReason.HOME_UNHEALTHY:
        yield _alone(case, reason)
    if reason is DecisionReason.HOME_OVERLOADED and case.home is not None and not case.situation.fleet.aggregated:
        yield _plan(case, "direct", DecisionReason.KNOWN_HISTORY, case.home)
    if untrusted is not None:
        reason = DecisionReason.SPLIT_DISTRUSTED
    if reason in _OF_DISTRUST:
        yield _aggregated(case, reason)
        yield _alone(case, reason)
    if untrusted is not None:  # an answer that may be wrong, and says so, rather than none
        yield _plan(case, "pd", DecisionReason.DISTRUSTED_ANYWAY, untrusted[1], untrusted[0])
    reason = DecisionReason.NO_PREFILL_ENGINE
    if prefills:
        reason = DecisionReason.NO_MATCHING_PAIR if case.decodes else DecisionReason.NO_DECODE_ENGINE
    yield _aggregated(case, reason)
    raise NoRoute(f"no route: {_EXPLAINED[reason]}, and no aggregated engine is up", reason=reason)


_OF_DISTRUST = frozenset({
    DecisionReason.SPLIT_DISTRUSTED, DecisionReason.HOME_DISTRUSTED, DecisionReason.DIRECT_DISTRUSTED,
})  # fmt: skip
_EXPLAINED = MappingProxyType({
    DecisionReason.NO_PREFILL_ENGINE: "no prefill engine is up",
    DecisionReason.NO_DECODE_ENGINE: "no decode engine is up",
    DecisionReason.NO_MATCHING_PAIR: "no prefill and decode engine share a handoff",
})  # fmt: skip


def _whole(case: Case, reason: DecisionReason) -> Plan:
    """A request that must not carry KV: an aggregated engine, else a decode engine that is safe without a handoff."""
    plan = _aggregated(case, reason) or _alone(case, reason)
    if plan is not None:
        return plan
    if not case.decodes:
        raise NoRoute("no aggregated and no decode engine is up", reason=DecisionReason.NO_DECODE_ENGINE)
    if reason is DecisionReason.ENDPOINT_NOT_SPLIT:
        reason = DecisionReason.HANDOFF_NOT_DIRECT_SAFE
    raise NoRoute(
        "this request cannot be split, no aggregated engine is up, and no decode engine is safe for direct requests "
        "(start one with --aggregated, or use --trust-direct if the decode engines' connector takes them)",
        reason=reason,
    )


def _aggregated(case: Case, reason: DecisionReason) -> Plan | None:
    engine = best_aggregated(case)
    return _plan(case, "aggregated", reason, engine) if engine is not None else None


def _alone(case: Case, reason: DecisionReason) -> Plan | None:
    """A decode engine computes the whole prompt itself."""
    engine = best_alone(case)
    if engine is None:
        return None
    if reason in _OF_DISTRUST and case.situation.distrust.is_direct and case.demand.history.known_answers:
        reason = DecisionReason.DISTRUSTED_ANYWAY
    return _plan(case, "direct", reason, engine)


def _plan(case: Case, route: Route, reason: DecisionReason, decode: Engine, prefill: Engine | None = None) -> Plan:
    return Plan(route=route, reason=reason, turn=case.demand.history.turn, decode=decode, prefill=prefill)
