"""Attempts as things stand now, and what legs tell of their engines."""

import pytest
from tests.support.builders import KEY
from tests.support.parts import Parts

from ppd_core.fleet.signs import FAILED_RUN
from ppd_core.policy.distrust import Distrust
from ppd_core.policy.plan import DecisionReason, Demand
from ppd_core.policy.retry_budget import PER_SECOND, WINDOW_S
from ppd_proxy.request.signals import MakePlan
from ppd_proxy.upstream.events import LegFailed
from ppd_wire.errors import EngineFailure, Failure, NoRoute

AGAIN = MakePlan(cause=DecisionReason.DECODE_FAILED)


def failed(source="engine", **more):
    return LegFailed(error=EngineFailure("died", reason=Failure.ENGINE_ERROR, source=source), **more)


def test_a_first_turn_goes_to_the_pair_that_is_there():
    parts = Parts()
    plan = parts.planner.plan(Demand(), MakePlan())
    assert (plan.route, plan.prefill.id, plan.decode.id) == ("pd", "p1:8000", "d1:8000")
    assert parts.observer.of("retried") == []


def test_without_an_engine_there_is_no_route():
    parts = Parts(("p1", "prefill"))
    with pytest.raises(NoRoute) as refused:
        parts.planner.plan(Demand(), MakePlan())
    assert refused.value.status == 503


def test_retries_are_counted_and_bounded_over_all_requests():
    parts = Parts()
    for _ in range(PER_SECOND * WINDOW_S):
        parts.planner.plan(Demand(), AGAIN)
    with pytest.raises(NoRoute, match="too many retries") as refused:
        parts.planner.plan(Demand(), AGAIN)
    assert refused.value.reason is DecisionReason.DECODE_FAILED
    assert parts.observer.of("retried") == [[True]] * PER_SECOND * WINDOW_S + [[False]]
    assert parts.planner.plan(Demand(), MakePlan(cause=DecisionReason.DECODE_FAILED, is_free=True))


def test_an_engine_whose_answers_all_fail_is_shunned_and_now_and_then_tried():
    parts = Parts(("p1", "prefill"), ("d1", "decode"), ("d2", "decode"))
    d1 = parts.fleet.get("d1:8000")
    for _ in range(FAILED_RUN):
        parts.planner.note_answer(d1, failure="500", tokens=10)
    assert parts.fleet.get("d1:8000").state == "unhealthy"
    assert parts.observer.of("fleet_changed")
    assert parts.load.weighed(parts.now)["d1:8000"] > 0
    ids = [parts.planner.plan(Demand(), MakePlan()).decode.id for _ in range(4)]
    assert ids.count("d1:8000") <= 1
    parts.planner.note_answer(d1, failure=None, tokens=10)
    assert parts.fleet.get("d1:8000").state == "up"


@pytest.mark.parametrize("event", [failed(source="proxy"), failed(is_our_doing=True)])
def test_what_the_proxy_caused_says_nothing_of_the_engine(event):
    parts = Parts()
    parts.planner.note_failure(parts.fleet.get("d1:8000"), event, tokens=10)
    assert not parts.fleet.failing
    assert parts.load.weighed(parts.now) == {}


def test_a_request_that_was_not_sent_is_a_missed_sign_of_life():
    parts = Parts()
    for _ in range(3):
        parts.planner.note_failure(parts.fleet.get("d1:8000"), failed(was_sent=False), tokens=10)
    assert parts.fleet.get("d1:8000").state == "down"
    assert parts.load.weighed(parts.now) == {}


def test_a_request_that_was_sent_counts_as_a_failed_answer():
    parts = Parts()
    parts.planner.note_failure(parts.fleet.get("d1:8000"), failed(), tokens=10)
    assert parts.fleet.failing == {"d1:8000"}
    assert parts.fleet.get("d1:8000").state == "up"


def test_an_attempt_reserves_its_engines_until_it_is_released():
    parts = Parts()
    request = parts.read({"messages": [{"role": "user", "content": "hi" * 50}]}).request
    attempt = parts.planner.attempt(request, KEY, MakePlan())
    assert (attempt.key, attempt.engine_id, attempt.salt, attempt.is_retry) == (KEY, KEY, "", False)
    assert parts.load.tokens == dict.fromkeys(["p1:8000", "d1:8000"], request.demand.prompt_tokens)
    attempt.release()
    attempt.release()
    assert parts.load.tokens == {}


def test_a_new_salt_counts_from_the_next_attempt_on():
    parts = Parts()
    request = parts.read({"messages": [{"role": "user", "content": "hi"}]}).request
    parts.control.guard(Distrust(salts={"d1:8000": "ppd-1"}))
    assert parts.planner.attempt(request, KEY, MakePlan()).salt == "ppd-1"


def test_what_an_engine_failed_at_is_not_asked_for_again():
    parts = Parts()
    parts.sampled = True
    request = parts.read({"messages": [{"role": "user", "content": "hi"}]}).request
    first, again = (parts.planner.attempt(request, KEY, command) for command in (MakePlan(), AGAIN))
    assert (first.asked.logprobs, first.is_scored) == (True, True)
    assert (again.asked.logprobs, again.is_scored, again.is_retry) == (False, False, True)
