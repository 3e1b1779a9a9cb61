"""Each filter by itself: what it lets pass, and the reason that it gives."""

import pytest
from tests.support.builders import decode, fleet, prefill

from ppd_core.conversation.history import History, Home
from ppd_core.policy import filters
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.placement import SLACK_TOKENS
from ppd_core.policy.plan import DecisionReason, Demand
from ppd_core.policy.situation import Situation, case_of

P1, D1, D2 = prefill("p1"), decode("d1"), decode("d2")
STOCK = decode("d1", handoff="p2p_nccl")
HOME = Home(engine_id=D1.id, incarnation=0, held_tokens=0)


def case(*engines, demand=None, mode="ppd", **facts):
    known = History(known_answers=1, is_complete=True, has_answers=True, home=HOME)
    return case_of(
        Demand(**{"history": known, **(demand or {})}),
        Situation(mode=mode, fleet=fleet(*(engines or (P1, D1, D2))), **facts),
    )


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ({"is_split_endpoint": False}, "endpoint_not_split"),
        ({"is_multi_sequence": True}, "multi_sequence"),
        ({"wants_prompt_logprobs": True}, "prompt_logprobs"),
        ({"prompt_depends_on_output": True}, "prompt_depends_on_output"),
        ({}, None),
    ],
)
def test_a_handoff_carries_one_plain_sequence(fact, reason):
    assert filters.handoff(case(demand=fact)) == reason


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (History(), "first_turn"),
        (History(has_answers=True), "history_unknown"),
        (History(has_answers=True, is_complete=True), None),
    ],
)
def test_a_direct_turn_needs_a_complete_history(history, reason):
    assert filters.history(case(demand={"history": history})) == reason


def test_mode_pd_lets_no_direct_turn_pass():
    assert filters.mode(case(mode="pd")) is DecisionReason.MODE_PD
    assert filters.mode(case()) is None


REFUSED = {
    "kv": (filters.trusted_kv, {"distrust": Distrust(salts={D1.id: "new"})}, "home_distrusted"),
    "route": (filters.trusted_route, {"distrust": Distrust(is_direct=True)}, "direct_distrusted"),
    "health": (filters.health, {"shunned": frozenset({D1.id})}, "home_unhealthy"),
    "room": (filters.room, {"loads": {D1.id: SLACK_TOKENS + 1}}, "home_overloaded"),
}


@pytest.mark.parametrize(("rule", "facts", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_home_is_refused_for_one_reason(rule, facts, reason):
    assert rule(case(**facts), D1) == reason
    assert rule(case(), D1) is None


def test_a_stock_engine_is_not_safe_unless_it_is_trusted():
    assert filters.safety(case(STOCK), STOCK) is DecisionReason.HANDOFF_NOT_DIRECT_SAFE
    assert filters.safety(case(STOCK, trust_direct=True), STOCK) is None
    assert filters.safety(case(), D1) is None


def test_a_home_is_as_good_as_any_where_all_are_shunned():
    assert filters.health(case(shunned=frozenset({D1.id, D2.id})), D1) is None


def test_a_pair_needs_one_handoff_and_a_trusted_one_trust():
    situation = case(distrust=Distrust(pairs=frozenset({(P1.id, D1.id)}))).situation
    assert filters.is_pair(P1, D1, situation)
    assert not filters.is_pair(P1, STOCK, situation)
    assert not filters.is_trusted_pair(P1, D1, situation)
    assert filters.is_trusted_pair(P1, D2, situation)
    assert not filters.is_trusted_pair(P1, STOCK, situation)
