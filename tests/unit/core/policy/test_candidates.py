"""The best candidate of each route."""

import pytest
from tests.support.builders import aggregated, decode, fleet, prefill

from ppd_core.conversation.history import History, Home
from ppd_core.policy.candidates import best_aggregated, best_alone, best_pair, direct_home, preferred
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.filters import is_pair, is_trusted_pair
from ppd_core.policy.placement import SLACK_TOKENS
from ppd_core.policy.plan import DecisionReason, Demand
from ppd_core.policy.situation import Situation, case_of

P1, P2, D1, D2, A1, A2 = prefill("p1"), prefill("p2"), decode("d1"), decode("d2"), aggregated("a1"), aggregated("a2")
PP, PD = prefill("pp", handoff="p2p_nccl"), decode("pd", handoff="p2p_nccl")
HOME = Home(engine_id=D1.id, incarnation=0, held_tokens=0)
KNOWN = History(known_answers=1, is_complete=True, has_answers=True, home=HOME)


def case(*engines, history=KNOWN, mode="ppd", **facts):
    return case_of(Demand(history=history, spread_key=b"k"), Situation(mode=mode, fleet=fleet(*engines), **facts))


def ids(*engines):
    return frozenset(each.id for each in engines)


def test_the_home_that_passes_every_filter_takes_the_request():
    assert direct_home(case(P1, D1, D2)) == D1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"mode": "pd", "unreachable": ids(D1)}, DecisionReason.MODE_PD),
        ({"unreachable": ids(D1)}, DecisionReason.HOME_GONE),
        ({"distrust": Distrust(is_direct=True), "shunned": ids(D1)}, DecisionReason.DIRECT_DISTRUSTED),
        ({"shunned": ids(D1), "loads": {D1.id: SLACK_TOKENS + 1}}, DecisionReason.HOME_UNHEALTHY),
    ],
)
def test_the_first_filter_says_why_no_home_takes_it(facts, reason):
    assert direct_home(case(P1, D1, D2, **facts)) is reason


def test_the_best_decode_engine_is_one_with_a_partner():
    made = case(PP, D1, PD, loads={PD.id: 10**6})
    assert best_pair(made, [PP], None, is_pair) == (PP, PD)
    assert best_pair(case(PP, D1), [PP], None, is_pair) is None
    assert best_pair(case(D1), [], D1, is_pair) is None


def test_the_home_comes_first_and_then_its_least_loaded_partner():
    made = case(P1, P2, D1, D2, loads={D1.id: 10, P1.id: 10})
    assert best_pair(made, [P1, P2], D1, is_pair) == (P2, D1)
    assert best_pair(made, [P1, P2], None, is_pair) == (P2, D2)


def test_a_home_without_a_trusted_partner_is_left():
    made = case(P1, D1, D2, loads={D2.id: 10}, distrust=Distrust(pairs=frozenset({(P1.id, D1.id)})))
    assert best_pair(made, [P1], D1, is_trusted_pair) == (P1, D2)
    assert best_pair(made, [P1], D1, is_pair) == (P1, D1)


def test_a_pair_that_was_tried_gives_way():
    made = case(P1, P2, D1, tried_pairs=frozenset({(P1.id, D1.id)}), loads={P2.id: 10**6})
    assert best_pair(made, [P1, P2], D1, is_pair) == (P2, D1)


def test_an_engine_whose_partners_all_failed_comes_last():
    made = case(P1, D1, PP, PD, failed=ids(P1), loads={PD.id: 10**6})
    assert best_pair(made, [P1, PP], None, is_pair) == (PP, PD)


def test_aggregated_engines_by_load_and_those_that_failed_last():
    assert best_aggregated(case(A1, A2, loads={A1.id: 1})) == A2
    assert best_aggregated(case(A1, A2, loads={A1.id: 1}, failed=ids(A2))) == A1
    assert best_aggregated(case(A1, unreachable=ids(A1))) is None


def test_only_a_safe_engine_serves_alone_its_conversation_first():
    assert best_alone(case(D1, D2, loads={D1.id: 5})) == D1
    assert best_alone(case(D1, PD, failed=ids(D1))) == D1
    assert best_alone(case(PD)) is None
    assert best_alone(case(PD, trust_direct=True)) == PD


def test_a_home_is_preferred_while_it_works_and_has_room():
    assert preferred(case(D1, D2), D1, [D1, D2]) == D1
    assert preferred(case(D1, D2, failed=ids(D1)), D1, [D1, D2]) is None
    assert preferred(case(D1, D2, shunned=ids(D1)), D1, [D1, D2]) is None
    assert preferred(case(D1, D2, loads={D1.id: SLACK_TOKENS + 1}), D1, [D1, D2]) is None
    assert preferred(case(D1, D2, history=History(home=HOME)), D1, [D1, D2]) is None
