"""What a situation makes of a demand: who can be reached, who holds the conversation, and whether that counts."""

import pytest
from tests.support.builders import decode, fleet, prefill

from ppd_core.conversation.history import History, Home
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.plan import Demand
from ppd_core.policy.situation import Situation, case_of

P1, D1, D2 = prefill("p1"), decode("d1"), decode("d2")
HOME = Home(engine_id=D1.id, incarnation=0, held_tokens=700, filled_by=(P1.id,))


def case(home=HOME, **facts):
    return case_of(Demand(history=History(home=home)), Situation(mode="ppd", fleet=fleet(P1, D1, D2), **facts))


def test_engines_that_cannot_be_reached_are_none():
    situation = Situation(mode="ppd", fleet=fleet(P1, D1, D2), unreachable=frozenset({D1.id}))
    assert list(situation.reachable(situation.fleet.decode)) == [D2]
    assert list(situation.reachable(situation.fleet.prefill)) == [P1]


def test_the_home_holds_the_conversation():
    made = case()
    assert (made.holder, made.home, made.held_tokens) == (D1, D1, 700)


def test_without_a_home_nothing_is_held():
    made = case(home=None)
    assert (list(made.decodes), made.holder, made.home, made.held_tokens) == ([D1, D2], None, None, 0)


def test_a_home_that_cannot_be_reached_holds_nothing():
    assert case(unreachable=frozenset({D1.id})).holder is None


@pytest.mark.parametrize(
    "distrust", [Distrust(pairs=frozenset({(P1.id, D1.id)})), Distrust(is_split=True), Distrust(salts={D1.id: "new"})]
)
def test_a_holder_whose_kv_is_not_trusted_is_no_home(distrust):
    made = case(distrust=distrust)
    assert (made.holder, made.home) == (D1, None)
