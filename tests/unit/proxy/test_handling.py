"""One request between the director and the driver: its plan, its legs' requests, what is noted of it."""

import json

import pytest
from tests.support.shared import make_call, make_shared
from tests.support.steps import run

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.core.signals import LegFailed, MakePlan, Planned, Refused
from ppd_proxy.handling import BYTES_PER_TOKEN, Handling
from ppd_wire.errors import BadRequest, EngineFailure, Failure

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
AGAIN = MakePlan(cause=DecisionReason.DECODE_FAILED)


@pytest.fixture
async def shared():
    return make_shared()


def read(shared, body=CHAT, dialect="chat", **named):
    handling = Handling(shared, make_call(body, dialect, **named))
    run(handling.identify())
    return handling


def planned(handling, command=None):
    answer = handling.make_plan(command or MakePlan())
    assert isinstance(answer, Planned)
    return answer.plan


def body_of(handling, kind, plan, params=b'{"remote_host":"h"}'):
    return json.loads(handling.shape(kind, plan, params).body)


async def test_what_cannot_be_read_is_a_bad_request(shared):
    with pytest.raises(BadRequest):
        read(shared, b"[1]")


async def test_a_plan_is_noted_reserved_and_counted(shared):
    handling = read(shared)
    plan = planned(handling)
    record = handling.record
    assert (record.route, record.reason, record.turn) == ("pd", DecisionReason.FIRST_TURN, 1)
    assert (record.prefill_id, record.decode_id, record.handoff) == ("p1:8000", "d1:8000", "nixl")
    tokens = len(json.dumps(CHAT["messages"])) // BYTES_PER_TOKEN
    assert shared.load.tokens == {plan.prefill.id: tokens, plan.decode.id: tokens}
    assert shared.observer.of("decided") == [["ppd", "pd", DecisionReason.FIRST_TURN]]
    handling.release()
    handling.release()
    assert shared.load.tokens == {}


async def test_each_leg_is_asked_its_own_of_its_own_engine(shared):
    handling = read(shared, {**CHAT, "stream": True})
    plan = planned(handling)
    prefill = handling.shape("prefill", plan, None)
    assert (prefill.origin.host, prefill.relay, prefill.is_retriable) == ("p1", None, True)
    assert (json.loads(prefill.body)["max_tokens"], "stream" in json.loads(prefill.body)) == (1, False)
    decode = handling.shape("decode", plan, b'{"remote_host":"h"}')
    assert (decode.origin.host, decode.is_retriable, decode.is_fresh) == ("d1", False, False)
    assert json.loads(decode.body)["kv_transfer_params"] == {"remote_host": "h"}
    assert decode.relay is not None
    release = handling.shape("release", plan, b'{"remote_host":"h"}')
    assert (release.origin.host, json.loads(release.body)["max_tokens"], release.relay) == ("d1", 1, None)


async def test_a_retry_has_an_id_of_its_own_and_counts(shared):
    handling = read(shared)
    first = handling.shape("decode", planned(handling), b"{}")
    again = handling.shape("decode", planned(handling, AGAIN), b"{}")
    assert first.head != again.head
    assert (handling.record.retries, again.is_fresh) == (1, True)


async def test_without_an_engine_the_request_is_refused_and_the_reason_is_counted():
    shared = make_shared(("p1", "prefill"))
    handling = read(shared)
    refused = handling.make_plan(MakePlan())
    assert isinstance(refused, Refused)
    assert handling.record.reason == refused.error.reason
    assert shared.observer.of("decided") == [["ppd", "none", refused.error.reason]]


async def test_a_retry_that_finds_no_engine_says_so_beside_the_first_error(shared):
    handling = read(shared)
    plan = planned(handling)
    handling.leg_failed(plan, "decode", LegFailed(error=EngineFailure("died", reason=Failure.ENGINE_ERROR)))
    shared.fleet.remove("d1:8000")
    assert isinstance(handling.make_plan(AGAIN), Refused)
    assert handling.record.error.startswith("died; not tried again: ")
    assert shared.load.weighed(shared.loop.time())["d1:8000"] > 0


async def test_an_endpoint_that_is_never_split_goes_to_one_engine_with_its_body():
    shared = make_shared(("a1", "aggregated"))
    handling = read(shared, {"messages": [], "stream": True}, "messages")
    plan = planned(handling)
    leg = handling.shape("decode", plan, None)
    assert (plan.route, leg.origin.host, json.loads(leg.body)) == ("aggregated", "a1", {"messages": [], "stream": True})
    assert (leg.relay is not None, leg.is_retriable) == (True, True)


async def test_the_clients_own_id_is_shown_and_the_engines_never_is(shared):
    handling = read(shared, CHAT, x_request_id="mine")
    leg = handling.shape("decode", planned(handling), None)
    assert dict(handling.own_headers())[b"x-request-id"] == b"mine"
    assert dict(handling.own_headers())[b"x-ppd-decision"] == b"pd;reason=first_turn;turn=1"
    assert b"mine" not in leg.head


async def test_a_request_that_was_refused_has_no_route(shared):
    handling = read(shared)
    handling.refuse(BadRequest("no"))
    assert (handling.record.route, handling.record.error) == ("none", "no")


async def test_what_is_stripped_reaches_no_engine():
    shared = make_shared(stripped_fields=frozenset({"conversation_id"}))
    handling = read(shared, {**CHAT, "conversation_id": "c"})
    plan = planned(handling)
    for kind in ("prefill", "decode"):
        assert "conversation_id" not in body_of(handling, kind, plan)
