"""Plans where engines have failed: shunned ones, trials, untried ones, and when nothing new is left."""

import pytest
from tests.support.builders import aggregated, decode, fleet, prefill

from ppd_core.conversation.history import History, Home
from ppd_core.policy.decide import decide
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.plan import DecisionReason, Demand
from ppd_core.policy.situation import Situation
from ppd_wire.errors import NoRoute

P1, P2, D1, D2, A1, A2 = prefill("p1"), prefill("p2"), decode("d1"), decode("d2"), aggregated("a1"), aggregated("a2")
SPLIT = fleet(P1, P2, D1, D2)
KEYS = [b"%d" % number for number in range(16)]


def ids(*names):
    return frozenset(f"{name}:8000" for name in names)


def known(home="d1"):
    return History(
        known_answers=1, is_complete=True, has_answers=True,
        home=Home(engine_id=f"{home}:8000", incarnation=0, held_tokens=100),
    )  # fmt: skip


def plan(engines=SPLIT, history=None, *, key=b"key", demand=None, **situation):
    demand = Demand(history=history or History(), spread_key=key, **(demand or {}))
    return decide(demand, Situation(mode="ppd", fleet=engines, **situation))


def chosen(**situation):
    """Whom sixteen conversations get."""
    plans = [plan(key=key, **situation) for key in KEYS]
    return {each.prefill.id[:2] for each in plans}, {each.decode.id[:2] for each in plans}


def test_shunned_engines_get_nothing_while_there_are_others():
    assert chosen(shunned=ids("p1", "d2")) == ({"p2"}, {"d1"})
    assert chosen(shunned=ids("p1", "d2"), loads={"p2:8000": 10**6, "d1:8000": 10**6}) == ({"p2"}, {"d1"})
    for key in KEYS:
        whole = plan(fleet(A1, A2), key=key, demand={"is_multi_sequence": True}, shunned=ids("a1"))
        assert whole.decode == A2


def test_where_all_are_shunned_they_are_used():
    assert chosen(shunned=ids("p1", "p2", "d1", "d2")) == ({"p1", "p2"}, {"d1", "d2"})


def test_a_trial_comes_before_the_others_however_loaded_it_is():
    assert chosen(trials=ids("d2"), loads={"d2:8000": 10**6}) == ({"p1", "p2"}, {"d2"})
    assert chosen(trials=ids("p1"), loads={"p1:8000": 10**6})[0] == {"p1"}


def test_a_shunned_engine_is_tried_before_one_that_failed_this_request():
    retry = {"cause": DecisionReason.DECODE_FAILED, "failed": ids("d1"), "shunned": ids("d2")}
    assert chosen(**retry)[1] == {"d2"}


def test_a_direct_turn_leaves_a_home_that_is_shunned():
    made = plan(history=known(), shunned=ids("d1"))
    assert (made.route, made.reason, made.decode) == ("pd", DecisionReason.HOME_UNHEALTHY, D2)


def test_a_direct_turn_stays_where_every_decode_engine_is_shunned():
    made = plan(history=known(), shunned=ids("d1", "d2"))
    assert (made.route, made.decode) == ("direct", D1)
    alone = plan(fleet(P1, D1), history=known(), shunned=ids("d1"))
    assert (alone.route, alone.decode) == ("direct", D1)


def test_without_a_pair_another_decode_engine_computes_the_prompt():
    made = plan(fleet(D1, D2), history=known(), shunned=ids("d1"))
    assert (made.route, made.reason, made.decode) == ("direct", DecisionReason.HOME_UNHEALTHY, D2)


def test_a_retry_ends_when_no_engine_is_left_that_has_not_failed():
    failures = {DecisionReason.PREFILL_FAILED: ids("p1", "p2"), DecisionReason.DECODE_FAILED: ids("d1", "d2")}
    for cause, failed in failures.items():
        assert plan(cause=cause, failed=failed).route == "pd"
        with pytest.raises(NoRoute, match="has failed it"):
            plan(cause=cause, failed=failed, may_repeat=False)


def test_a_retry_goes_on_while_one_is_left():
    made = plan(cause=DecisionReason.PREFILL_FAILED, failed=ids("p1"), may_repeat=False)
    assert made.prefill == P2
    made = plan(fleet(P1, D1, D2), cause=DecisionReason.DECODE_FAILED, failed=ids("p1", "d1"), may_repeat=False)
    assert (made.prefill, made.decode) == (P1, D2)  # the prefill engine did its part the last time


def test_the_only_decode_engine_gets_its_second_chance_with_another_partner():
    engines = fleet(P1, P2, D1)
    for key in KEYS:
        first = plan(engines, key=key)
        pair = (first.prefill.id, first.decode.id)
        cause = DecisionReason.DECODE_FAILED
        again = plan(engines, key=key, cause=cause, failed=ids("d1"), tried_pairs=frozenset({pair}))
        assert again.prefill != first.prefill


FAILED_AND_SHUNNED = pytest.mark.parametrize("how", ["failed", "shunned"])


@FAILED_AND_SHUNNED
@pytest.mark.parametrize("role", ["p", "d"])
def test_an_aggregated_engine_serves_where_all_of_a_role_fail(role, how):
    cause = {"p": DecisionReason.PREFILL_FAILED, "d": DecisionReason.DECODE_FAILED} if how == "failed" else {}
    made = plan(fleet(P1, D1, A1), **{how: ids(f"{role}1"), "cause": cause.get(role)})
    assert (made.route, made.decode) == ("aggregated", A1)
    down = {"p": DecisionReason.NO_PREFILL_ENGINE, "d": DecisionReason.NO_DECODE_ENGINE}
    assert made.reason == cause.get(role, down[role])


@FAILED_AND_SHUNNED
def test_no_route_is_left_for_one_whose_engines_fail_as_well(how):
    made = plan(fleet(P1, D1, A1), **{how: ids("d1", "a1")})
    assert (made.route, made.decode) == ("pd", D1)


def test_a_direct_turn_leaves_its_only_home_for_an_aggregated_engine_while_it_fails():
    made = plan(fleet(P1, D1, A1), history=known(), shunned=ids("d1"))
    assert (made.route, made.reason, made.decode) == ("aggregated", DecisionReason.HOME_UNHEALTHY, A1)


@FAILED_AND_SHUNNED
def test_what_is_never_split_goes_to_a_decode_engine_where_aggregated_ones_fail(how):
    safe = decode("d1", is_ppd=True)
    made = plan(fleet(safe, A1), demand={"is_multi_sequence": True}, **{how: ids("a1")})
    assert (made.route, made.reason, made.decode) == ("direct", DecisionReason.MULTI_SEQUENCE, safe)


@pytest.mark.parametrize("how", [{"failed": ids("d2"), "may_repeat": False}, {"shunned": ids("d2")}])
def test_a_distrusted_pairs_decode_engine_serves_alone_where_the_others_fail(how):
    distrust = Distrust(pairs=frozenset({("p1:8000", "d1:8000")}))
    made = plan(fleet(P1, D1, D2), distrust=distrust, **how)
    assert (made.route, made.reason, made.decode) == ("direct", DecisionReason.SPLIT_DISTRUSTED, D1)
    second_chance = plan(fleet(P1, D1, D2), distrust=distrust, failed=ids("d2"), cause=DecisionReason.DECODE_FAILED)
    assert (second_chance.route, second_chance.decode) == ("pd", D2)
