"""The bytes of each leg."""

import json

import pytest
from tests.support.parts import Parts

from ppd_core.policy.distrust import Distrust
from ppd_proxy.request.signals import MakePlan, OpenLeg
from ppd_wire.dialects.dialects import HandedOver

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
HANDED = HandedOver(b'{"remote_host":"h"}', 7)


def planned(body=CHAT, dialect="chat", *, parts=None, **named):
    parts = parts or Parts()
    ongoing = parts.read(body, dialect, **named)
    parts.serving.plan(ongoing, MakePlan())
    ongoing.handed = HANDED

    def leg(kind, **more):
        return parts.serving.leg(ongoing, OpenLeg(kind, **more))

    return leg


def test_each_leg_is_asked_its_own_of_its_own_engine():
    leg = planned({**CHAT, "stream": True})
    prefill = leg("prefill")
    assert (prefill.origin.host, prefill.relay, prefill.is_retriable) == ("p1", None, True)
    assert (json.loads(prefill.body)["max_tokens"], "stream" in json.loads(prefill.body)) == (1, False)
    decode = leg("decode")
    assert (decode.origin.host, decode.is_retriable, decode.is_fresh) == ("d1", False, False)
    assert json.loads(decode.body)["kv_transfer_params"] == {"remote_host": "h"}
    assert decode.relay is not None
    release = leg("release")
    assert (release.origin.host, json.loads(release.body)["max_tokens"], release.relay) == ("d1", 1, None)
    assert json.loads(release.body)["kv_transfer_params"] == {"remote_host": "h"}


def test_a_release_leg_apart_has_a_salt_that_no_other_leg_has():
    parts = Parts()
    parts.control.guard(Distrust(salts={"d1:8000": "ppd-1"}))
    legs = [planned(parts=parts) for _ in range(2)]
    bodies = [json.loads(leg("release", is_apart=is_apart).body) for leg in legs for is_apart in (False, True)]
    salts = [body["cache_salt"] for body in bodies]
    assert salts[0] == salts[2] == "ppd-1"
    assert len({*salts}) == 3
    assert all(len(salt) <= 128 for salt in salts)


def test_the_clients_headers_travel_and_the_engines_own_key_replaces_theirs():
    head = planned(authorization="Bearer mine", x_trace="7")("decode").head
    assert b"x-trace: 7\r\n" in head
    assert b"authorization: Bearer engine\r\n" in head
    assert b"mine" not in head


@pytest.mark.parametrize("stream", [False, True])
def test_an_endpoint_that_is_never_split_goes_to_one_engine_with_its_body(stream):
    body = {"messages": [], "stream": stream}
    decode = planned(body, "messages", parts=Parts(("a1", "aggregated")))("decode")
    assert (decode.origin.host, json.loads(decode.body)) == ("a1", body)
    assert (decode.relay is not None, decode.is_retriable) == (stream, True)


def test_there_is_no_prefill_leg_without_a_prefill_engine():
    leg = planned({"messages": []}, "messages", parts=Parts(("a1", "aggregated")))
    with pytest.raises(ValueError, match="route aggregated"):
        leg("prefill")


def test_what_is_stripped_reaches_no_engine():
    leg = planned({**CHAT, "conversation_id": "c"}, parts=Parts(stripped=frozenset({"conversation_id"})))
    for kind in ("prefill", "decode"):
        assert "conversation_id" not in json.loads(leg(kind).body)
