"""What the steps of an exchange mean for one request: its attempts, its legs, its answer, what is noted of it."""

import json

import pytest
from tests.support.parts import ANSWER, Answered, Parts, answering

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.request.reader import BYTES_PER_TOKEN
from ppd_proxy.request.signals import DeadlinePassed, LegRefused, MakePlan, OpenLeg, Planned, Refused
from ppd_proxy.upstream.events import LegEnded, LegFailed
from ppd_wire.dialects.dialects import HandedOver
from ppd_wire.errors import BadRequest, EngineFailure, Failure

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
AGAIN = MakePlan(cause=DecisionReason.DECODE_FAILED)
PARAMS = b'{"remote_host":"h"}'


@pytest.fixture
def parts():
    return Parts()


def planned(parts, ongoing, command=None):
    answer = parts.serving.plan(ongoing, command or MakePlan())
    assert isinstance(answer, Planned)
    return answer.plan


def handed_over(parts, ongoing, params=PARAMS, prompt_tokens=7):
    leg = Answered(kind="prefill", prefilled=HandedOver(params, prompt_tokens))
    return parts.serving.judge(ongoing, leg, LegEnded(status=200))


def leg(parts, ongoing, kind, **more):
    return parts.serving.leg(ongoing, OpenLeg(kind, **more))


def test_what_cannot_be_read_is_a_bad_request(parts):
    with pytest.raises(BadRequest):
        parts.read(b"[1]")


def test_a_plan_is_noted_reserved_and_counted(parts):
    ongoing = parts.read(CHAT)
    plan = planned(parts, ongoing)
    record = ongoing.record
    assert (record.route, record.reason, record.turn) == ("pd", DecisionReason.FIRST_TURN, 1)
    assert (record.prefill_id, record.decode_id, record.handoff) == ("p1:8000", "d1:8000", "nixl")
    tokens = len(json.dumps(CHAT["messages"])) // BYTES_PER_TOKEN
    assert parts.load.tokens == {plan.prefill.id: tokens, plan.decode.id: tokens}
    assert parts.observer.of("decided") == [["ppd", "pd", DecisionReason.FIRST_TURN]]
    parts.serving.release(ongoing)
    parts.serving.release(ongoing)
    assert parts.load.tokens == {}


def test_the_decode_leg_carries_what_the_prefill_leg_handed_over(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    assert handed_over(parts, ongoing) == LegEnded(status=200, has_kv=True)
    assert json.loads(leg(parts, ongoing, "decode").body)["kv_transfer_params"] == json.loads(PARAMS)
    assert ongoing.record.has_kv


def test_a_prefill_answer_that_hands_nothing_over_is_no_failure(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    assert handed_over(parts, ongoing, None) == LegEnded(status=200)
    assert "kv_transfer_params" not in json.loads(leg(parts, ongoing, "decode").body)
    assert ongoing.record.has_kv is False


def test_a_prefill_answer_that_no_decode_engine_could_use_is_a_failed_leg(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    assert isinstance(handed_over(parts, ongoing, b'{"do_remote_prefill":true}'), LegFailed)
    assert parts.fleet.failing == {"p1:8000"}


def test_a_retry_has_an_id_of_its_own_and_counts(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    first = leg(parts, ongoing, "decode")
    planned(parts, ongoing, AGAIN)
    again = leg(parts, ongoing, "decode")
    assert first.head != again.head
    assert (ongoing.record.retries, again.is_fresh) == (1, True)


def test_without_an_engine_the_request_is_refused_and_the_reason_is_counted():
    parts = Parts(("p1", "prefill"))
    ongoing = parts.read(CHAT)
    refused = parts.serving.plan(ongoing, MakePlan())
    assert isinstance(refused, Refused)
    assert ongoing.record.reason == refused.error.reason
    assert parts.observer.of("decided") == [["ppd", "none", refused.error.reason]]


def test_a_retry_that_finds_no_engine_says_so_beside_the_first_error(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    failed = LegFailed(error=EngineFailure("died", reason=Failure.ENGINE_ERROR))
    assert parts.serving.judge(ongoing, Answered(), failed) == failed
    parts.fleet.remove("d1:8000")
    assert isinstance(parts.serving.plan(ongoing, AGAIN), Refused)
    assert ongoing.record.error.startswith("died; not tried again: ")
    assert parts.load.weighed(parts.now)["d1:8000"] > 0


def test_a_deadline_that_passed_counts_against_the_engine_but_not_that_of_a_release(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    parts.serving.judge(ongoing, Answered(), DeadlinePassed("release"))
    assert not parts.fleet.failing
    parts.serving.judge(ongoing, Answered(kind="prefill"), DeadlinePassed("prefill"))
    assert parts.fleet.failing == {"p1:8000"}


def test_a_release_legs_answer_serves_nobody(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    assert parts.serving.judge(ongoing, Answered(kind="release", status=500), LegEnded(status=500)).status == 500
    assert not parts.fleet.failing


def test_two_prompts_are_a_failed_leg_and_both_engines_are_avoided(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    handed_over(parts, ongoing, prompt_tokens=8)
    leg(parts, ongoing, "decode")
    failed = parts.serving.judge(ongoing, answering(), LegEnded(status=200))
    assert isinstance(failed, LegFailed)
    assert ongoing.doubted == {"p1:8000", "d1:8000"}


def test_what_the_check_asked_for_and_an_engine_refused_is_not_the_clients_fault(parts):
    parts.sampled, parts.asked_tops = True, 5
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    leg(parts, ongoing, "decode")
    too_many = {"error": {"message": "Requested sample logprobs of 5, which is greater than max allowed: 2"}}
    refused = parts.serving.judge(ongoing, answering(too_many, status=400), LegEnded(status=400))
    assert refused == LegRefused()
    assert parts.observer.of("asked_no_tops") == [["d1:8000", 5]]


def test_a_logprob_that_is_no_number_is_our_doing(parts):
    parts.sampled = True
    ongoing = parts.read(CHAT)
    plan = planned(parts, ongoing)
    leg(parts, ongoing, "decode")
    error = {"error": {"message": "Out of range float values are not JSON compliant: nan"}}
    failed = parts.serving.judge(ongoing, answering(error, status=500), LegEnded(status=500))
    assert isinstance(failed, LegFailed)
    assert (failed.is_our_doing, ongoing.broken_by) == (True, plan)
    assert not parts.fleet.failing


def test_a_whole_answer_is_noted_and_the_next_turn_goes_straight_to_its_engine(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    handed_over(parts, ongoing)
    leg(parts, ongoing, "decode")
    parts.serving.judge(ongoing, answering(), LegEnded(status=200))
    parts.serving.complete(ongoing, answering())
    record = ongoing.record
    assert (record.prompt_tokens, record.completion_tokens, record.filled_by) == (7, 2, ("p1:8000",))
    messages = [*CHAT["messages"], {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and?"}]
    plan = planned(parts, parts.read({"messages": messages}))
    assert (plan.route, plan.turn, plan.decode.id) == ("direct", 2, "d1:8000")


def test_an_answer_is_remembered_once(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    parts.serving.complete(ongoing, answering())
    ongoing.record.completion_tokens = None
    parts.serving.complete(ongoing, answering())
    assert ongoing.record.completion_tokens is None


def test_an_error_is_not_remembered(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    parts.serving.complete(ongoing, answering({"error": {}}, status=400))
    assert not parts.conversations.count


def test_the_clients_own_id_is_shown_and_the_engines_never_is(parts):
    ongoing = parts.read(CHAT, x_request_id="mine")
    planned(parts, ongoing)
    own = dict(parts.serving.own_headers(ongoing))
    assert own[b"x-request-id"] == b"mine"
    assert own[b"x-ppd-decision"] == b"pd;reason=first_turn;turn=1"
    assert b"mine" not in leg(parts, ongoing, "decode").head
    assert dict(parts.serving.response_headers(ongoing, answering(headers=[(b"x-a", b"b")])))[b"x-a"] == b"b"


def test_what_an_engine_says_is_shown_under_the_public_id(parts):
    ongoing = parts.read(CHAT)
    planned(parts, ongoing)
    planned(parts, ongoing, AGAIN)
    hidden = ongoing.attempt.engine_id
    shown = parts.serving.response_body(ongoing, answering({**ANSWER, "id": f"chatcmpl-{hidden}"}))
    assert json.loads(shown)["id"] == f"chatcmpl-{ongoing.record.request_id}"


def test_a_request_that_was_refused_has_no_route(parts):
    ongoing = parts.read(CHAT)
    parts.serving.refuse(ongoing, BadRequest("no"))
    assert (ongoing.record.route, ongoing.record.error) == ("none", "no")
