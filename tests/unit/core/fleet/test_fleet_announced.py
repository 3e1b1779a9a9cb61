"""What an announcement may do to an engine that somebody named, and how many may announce themselves."""

import pytest

from ppd_core.fleet.fleet import Fleet

P, D = "10.0.0.1:8100", "10.0.0.2:8200"
OWN, FOREIGN = "10.0.0.2:22001", "10.6.6.6:666"


def fleet_of(*, handoff="auto", trust=False, **limits):
    return Fleet(default_handoff=handoff, trust_announced=trust, **limits)


def announce(fleet, *, address=D, role="decode", zmq=FOREIGN, is_ppd=True, now=1.0):
    return fleet.announce(role=role, http_address=address, zmq_address=zmq, is_ppd=is_ppd, now=now)


def register(fleet, *, role="decode", handoff=None, zmq=None, ttl_s=None, now=0.0, **facts):
    return fleet.register(
        url=f"http://{D}", role=role, handoff=handoff, zmq_address=zmq, ttl_s=ttl_s, now=now, **facts
    )


def name_static(fleet):
    return fleet.add_static(f"http://{D}", "decode", 0.0)


def up(fleet):
    fleet.probed(D, True, 0.0)
    assert fleet.get(D).state == "up"
    return fleet.get(D)


NAMED = {
    "static": name_static,
    "registered": register,
    "registered with a KV address": lambda fleet: register(fleet, zmq=OWN),
    "registered with its handoff": lambda fleet: register(fleet, handoff="nixl"),
    "heartbeats": lambda fleet: register(fleet, ttl_s=30.0),
}


@pytest.mark.parametrize("how", NAMED)
@pytest.mark.parametrize("handoff", ["auto", "nixl", "p2p_nccl", "none"])
def test_an_announcement_changes_nothing_about_an_engine_that_was_named(how, handoff):
    fleet = fleet_of(handoff=handoff)
    NAMED[how](fleet)
    before = up(fleet)
    for role in ("prefill", "decode"):
        assert announce(fleet, role=role) == ()
        assert fleet.get(D) == before
    assert fleet.objection(D, FOREIGN).reason == "named_by_operator"


@pytest.mark.parametrize("trust", [False, True])
def test_a_nixl_engine_stays_one_whoever_is_trusted(trust):
    fleet = fleet_of(trust=trust)
    name_static(fleet)
    before = up(fleet)
    assert announce(fleet) == ()
    assert fleet.get(D) == before
    assert fleet.get(D).handoff == "nixl"


@pytest.mark.parametrize("how", ["static", "registered"])
def test_what_was_announced_before_an_engine_was_named_is_forgotten(how):
    fleet = fleet_of()
    announce(fleet, role="prefill", now=0.0)
    assert fleet.get(D).handoff == "p2p_nccl"
    NAMED[how](fleet)
    engine = fleet.get(D)
    assert (engine.role, engine.handoff, engine.zmq_address, engine.is_ppd) == ("decode", "nixl", None, False)
    announce(fleet)
    assert fleet.get(D) == engine


def test_an_announcement_is_no_heartbeat_of_a_registered_engine():
    fleet = fleet_of()
    register(fleet, zmq=OWN, ttl_s=30.0)
    up(fleet)
    announce(fleet, zmq=OWN, now=29.0)
    assert [change.what for change in fleet.expire(30.0)] == ["down"]


def test_trusted_announcements_complete_p2p_nccl_engines_that_were_named():
    fleet = fleet_of(handoff="p2p_nccl", trust=True)
    name_static(fleet)
    up(fleet)
    announce(fleet, role="prefill", zmq=OWN)
    engine = fleet.get(D)
    assert (engine.role, engine.source, engine.handoff) == ("decode", "static", "p2p_nccl")
    assert (engine.zmq_address, engine.is_ppd, engine.incarnation) == (OWN, True, 0)
    fleet.expire(10_000.0)
    assert fleet.get(D).state == "up"


def test_what_a_registration_states_wins_over_trusted_announcements():
    fleet = fleet_of(trust=True)
    register(fleet, zmq=OWN, is_ppd=False)
    announce(fleet, zmq=FOREIGN, is_ppd=True)
    assert (fleet.get(D).zmq_address, fleet.get(D).is_ppd) == (OWN, False)
    register(fleet, is_ppd=True)
    assert (fleet.get(D).zmq_address, fleet.get(D).is_ppd) == (OWN, True)


def test_a_registration_may_say_that_an_engine_takes_direct_requests():
    fleet = fleet_of()
    register(fleet, zmq=OWN, is_ppd=True)
    assert fleet.get(D).is_ppd
    register(fleet)
    assert fleet.get(D).is_ppd


def test_an_announcement_that_says_no_news_is_no_reason_to_object():
    fleet = fleet_of()
    register(fleet, zmq=OWN)
    assert fleet.objection(D, OWN) is None
    assert fleet.objection(P, FOREIGN) is None


def test_only_so_many_engines_may_announce_themselves():
    fleet = fleet_of(max_announced=2)
    name_static(fleet)
    for number in range(5):
        announce(fleet, address=f"10.0.1.{number}:80")
    assert [engine.id for engine in fleet.engines() if engine.source == "announced"] == ["10.0.1.0:80", "10.0.1.1:80"]
    objection = fleet.objection("10.0.1.9:80", OWN)
    assert (objection.reason, "--max-announced-engines" in str(objection)) == ("too_many_engines", True)
    assert fleet.objection("10.0.1.0:80", OWN) is None
    fleet.remove("10.0.1.0:80")
    assert [change.what for change in announce(fleet, address="10.0.1.9:80")] == ["joined"]
    assert len(register(fleet, role="prefill")) == 1


def test_only_engines_that_nobody_named_are_not_trusted():
    fleet = fleet_of()
    name_static(fleet)
    announce(fleet, address=P)
    assert (fleet.get(D).is_trusted, fleet.get(P).is_trusted) == (True, False)
    fleet.register(url=f"http://{P}", role="prefill", handoff=None, zmq_address=OWN, ttl_s=None, now=2.0)
    assert fleet.get(P).is_trusted
    trusting = fleet_of(trust=True)
    announce(trusting, address=P)
    assert trusting.get(P).is_trusted
