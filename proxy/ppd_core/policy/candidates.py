"""The candidates of each route that pass its filters, and the best of them by score. Pure.

Never the product of P and D: a decode engine is chosen among those with a partner, then one of its partners.
"""

from __future__ import annotations

from collections.abc import Sequence

from ppd_core.fleet.engine import Engine
from ppd_core.policy.filters import DIRECT, HOME, PairFilter, is_direct_safe
from ppd_core.policy.placement import Score, is_overloaded, load_score
from ppd_core.policy.plan import DecisionReason
from ppd_core.policy.situation import Case


def direct_home(case: Case) -> Engine | DecisionReason:
    """The home that takes the request without a prefill leg, or why none does."""
    for of_request in DIRECT:
        reason = of_request(case)
        if reason is not None:
            return reason
    home = case.holder
    if home is None:
        return DecisionReason.HOME_GONE
    for of_home in HOME:
        reason = of_home(case, home)
        if reason is not None:
            return reason
    return home


def best_pair(
    case: Case, prefills: Sequence[Engine], home: Engine | None, can_pair: PairFilter
) -> tuple[Engine, Engine] | None:
    """The home, for its prefix cache, else the best decode engine that has a partner; and its best partner."""
    home = preferred(case, home, case.decodes)
    if home is not None and (pair := _with_partner(case, prefills, home, can_pair)) is not None:
        return pair
    situation = case.situation
    avoid, worn = situation.failed, situation.failed | situation.shunned
    if worn:  # ... and those whose partners all failed the request or are shunned
        fresh = [each for each in prefills if each.id not in worn]
        avoid |= {each.id for each in case.decodes if not any(can_pair(prefill, each, situation) for prefill in fresh)}
    for decode in sorted(case.decodes, key=_score(case, avoid)):
        pair = _with_partner(case, prefills, decode, can_pair)
        if pair is not None:
            return pair
    return None


def _with_partner(
    case: Case, prefills: Sequence[Engine], decode: Engine, can_pair: PairFilter
) -> tuple[Engine, Engine] | None:
    situation = case.situation
    partners = [each for each in prefills if can_pair(each, decode, situation)]
    avoid = situation.failed
    if situation.tried_pairs:
        avoid |= {prefill_id for prefill_id, decode_id in situation.tried_pairs if decode_id == decode.id}
    prefill = best(case, partners, avoid)
    return (prefill, decode) if prefill is not None else None


def best_aggregated(case: Case) -> Engine | None:
    situation = case.situation
    return best(case, situation.reachable(situation.fleet.aggregated), situation.failed)


def best_alone(case: Case) -> Engine | None:
    """The decode engine that computes the whole prompt, where one is safe without a handoff."""
    situation, home = case.situation, case.home
    safe = [each for each in case.decodes if is_direct_safe(each, situation)]
    home = preferred(case, home, safe) if home is not None and is_direct_safe(home, situation) else None
    return home or best(case, safe, situation.failed)


def preferred(case: Case, home: Engine | None, decodes: Sequence[Engine]) -> Engine | None:
    """The home, unless it failed (this request, or all the last ones) or carries too much. A shared system prompt has
    no home of its own."""
    situation = case.situation
    if home is None or case.demand.history.known_answers == 0:
        return None
    if home.id in situation.failed or home.id in situation.shunned:
        return None
    return None if is_overloaded(home, case.held_tokens, decodes, situation.loads) else home


def best(case: Case, engines: Sequence[Engine], avoid: frozenset[str]) -> Engine | None:
    """By score; those to avoid last."""
    return min(engines, key=_score(case, avoid), default=None)


def _score(case: Case, avoid: frozenset[str]) -> Score:
    situation = case.situation
    return load_score(situation.loads, case.demand.spread_key, avoid, shun=situation.shunned, first=situation.trials)
