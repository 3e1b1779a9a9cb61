"""Plans as things stand now, and what legs tell of their engines."""

import pytest
from tests.support.shared import make_shared

from ppd_core.fleet.signs import FAILED_RUN
from ppd_core.policy.plan import DecisionReason, Demand
from ppd_core.policy.retry_budget import PER_SECOND, WINDOW_S
from ppd_proxy.core.signals import LegFailed, MakePlan
from ppd_proxy.planning import make_plan, note_answer, note_failure
from ppd_wire.errors import EngineFailure, Failure, NoRoute

AGAIN = MakePlan(cause=DecisionReason.DECODE_FAILED)


def failed(source="engine", **more):
    return LegFailed(error=EngineFailure("died", reason=Failure.ENGINE_ERROR, source=source), **more)


async def test_a_first_turn_goes_to_the_pair_that_is_there():
    shared = make_shared()
    plan = make_plan(shared, Demand(), MakePlan())
    assert (plan.route, plan.prefill.id, plan.decode.id) == ("pd", "p1:8000", "d1:8000")
    assert shared.observer.of("retried") == []


async def test_without_an_engine_there_is_no_route():
    shared = make_shared(("p1", "prefill"))
    with pytest.raises(NoRoute) as refused:
        make_plan(shared, Demand(), MakePlan())
    assert refused.value.status == 503


async def test_retries_are_counted_and_bounded_over_all_requests():
    shared = make_shared()
    for _ in range(PER_SECOND * WINDOW_S):
        make_plan(shared, Demand(), AGAIN)
    with pytest.raises(NoRoute, match="too many retries") as refused:
        make_plan(shared, Demand(), AGAIN)
    assert refused.value.reason is DecisionReason.DECODE_FAILED
    assert shared.observer.of("retried") == [[True]] * PER_SECOND * WINDOW_S + [[False]]
    assert make_plan(shared, Demand(), MakePlan(cause=DecisionReason.DECODE_FAILED, is_free=True))


async def test_an_engine_whose_answers_all_fail_is_shunned_and_now_and_then_tried():
    shared = make_shared(("p1", "prefill"), ("d1", "decode"), ("d2", "decode"))
    d1 = shared.fleet.get("d1:8000")
    for _ in range(FAILED_RUN):
        note_answer(shared, d1, failure="500", tokens=10)
    assert shared.fleet.get("d1:8000").state == "unhealthy"
    assert shared.observer.of("fleet_changed")
    assert shared.load.weighed(shared.loop.time())["d1:8000"] > 0
    ids = [make_plan(shared, Demand(), MakePlan()).decode.id for _ in range(4)]
    assert ids.count("d1:8000") <= 1
    note_answer(shared, d1, failure=None, tokens=10)
    assert shared.fleet.get("d1:8000").state == "up"


@pytest.mark.parametrize("event", [failed(source="proxy"), failed(is_our_doing=True)])
async def test_what_the_proxy_caused_says_nothing_of_the_engine(event):
    shared = make_shared()
    note_failure(shared, shared.fleet.get("d1:8000"), event, tokens=10)
    assert not shared.fleet.failing
    assert shared.load.weighed(shared.loop.time()) == {}


async def test_a_request_that_was_not_sent_is_a_missed_sign_of_life():
    shared = make_shared()
    for _ in range(3):
        note_failure(shared, shared.fleet.get("d1:8000"), failed(was_sent=False), tokens=10)
    assert shared.fleet.get("d1:8000").state == "down"
    assert shared.load.weighed(shared.loop.time()) == {}


async def test_a_request_that_was_sent_counts_as_a_failed_answer():
    shared = make_shared()
    note_failure(shared, shared.fleet.get("d1:8000"), failed(), tokens=10)
    assert shared.fleet.failing == {"d1:8000"}
    assert shared.fleet.get("d1:8000").state == "up"
