"""What a request's candidate plans must pass: a function for each rule, which gives the reason why one does not. Pure.

A new rule is a function here and its place in DIRECT or HOME (the first that holds gives the reason), or a PairFilter.
"""

from __future__ import annotations

from collections.abc import Callable

from ppd_core.fleet.engine import Engine
from ppd_core.handoff.registry import HANDOFFS
from ppd_core.policy.placement import is_overloaded
from ppd_core.policy.plan import DecisionReason
from ppd_core.policy.situation import Case, Situation

PairFilter = Callable[[Engine, Engine, Situation], bool]
"""Whether a prefill and a decode engine can be used together."""

# Of every plan with a handoff


def handoff(case: Case) -> DecisionReason | None:
    """A handoff carries one sequence, whose prompt is known before and whose logprobs nobody wants."""
    demand = case.demand
    if not demand.is_split_endpoint:
        return DecisionReason.ENDPOINT_NOT_SPLIT
    if demand.is_multi_sequence:
        return DecisionReason.MULTI_SEQUENCE
    if demand.wants_prompt_logprobs:
        return DecisionReason.PROMPT_LOGPROBS
    return DecisionReason.PROMPT_DEPENDS_ON_OUTPUT if demand.prompt_depends_on_output else None


# Of the direct plan: what the request and the mode say, then what its home does


def history(case: Case) -> DecisionReason | None:
    known = case.demand.history
    if known.is_complete:
        return None
    return DecisionReason.HISTORY_UNKNOWN if known.has_answers else DecisionReason.FIRST_TURN


def mode(case: Case) -> DecisionReason | None:
    return DecisionReason.MODE_PD if case.situation.mode == "pd" else None


def trusted_kv(case: Case, home: Engine) -> DecisionReason | None:
    return DecisionReason.HOME_DISTRUSTED if case.home is None else None


def trusted_route(case: Case, home: Engine) -> DecisionReason | None:
    return DecisionReason.DIRECT_DISTRUSTED if case.situation.distrust.is_direct else None


def safety(case: Case, home: Engine) -> DecisionReason | None:
    return None if is_direct_safe(home, case.situation) else DecisionReason.HANDOFF_NOT_DIRECT_SAFE


def health(case: Case, home: Engine) -> DecisionReason | None:
    """Where all decode engines are shunned, none is better than the home."""
    shunned = case.situation.shunned
    if home.id not in shunned or all(each.id in shunned for each in case.decodes):
        return None
    return DecisionReason.HOME_UNHEALTHY


def room(case: Case, home: Engine) -> DecisionReason | None:
    is_full = is_overloaded(home, case.held_tokens, case.decodes, case.situation.loads)
    return DecisionReason.HOME_OVERLOADED if is_full else None


DIRECT: tuple[Callable[[Case], DecisionReason | None], ...] = (history, mode)
HOME: tuple[Callable[[Case, Engine], DecisionReason | None], ...] = (
    trusted_kv,
    trusted_route,
    safety,
    health,
    room,
)


# Of an engine without a handoff, and of a pair


def is_direct_safe(decode: Engine, situation: Situation) -> bool:
    """The engine survives a request without a handoff."""
    return situation.trust_direct or HANDOFFS[decode.handoff].is_direct_safe(decode)


def is_pair(prefill: Engine, decode: Engine, situation: Situation) -> bool:
    """Both have what the handoff needs."""
    return HANDOFFS[decode.handoff].can_pair(prefill, decode)


def is_trusted_pair(prefill: Engine, decode: Engine, situation: Situation) -> bool:
    is_bad = situation.distrust.is_pair_bad(prefill.id, decode.id)
    return not is_bad and is_pair(prefill, decode, situation)
