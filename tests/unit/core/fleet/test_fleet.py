import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_core.fleet.fleet import Fleet

P, D = "10.0.0.1:8100", "10.0.0.2:8200"
P_URL, D_URL = f"http://{P}", f"http://{D}"
PERIOD_S = 3.0  # how often engines announce themselves


@pytest.fixture
def fleet():
    return Fleet(default_handoff="auto")


def announce(fleet, now, *, address=P, role="prefill", zmq="10.0.0.1:21001", is_ppd=False):
    return fleet.announce(role=role, http_address=address, zmq_address=zmq, is_ppd=is_ppd, now=now)


def register(fleet, now, *, url=D_URL, role="decode", handoff=None, zmq=None, ttl_s=30.0):
    return fleet.register(url=url, role=role, handoff=handoff, zmq_address=zmq, ttl_s=ttl_s, now=now)


def probe(fleet, engine_id, *results, now=0.0):
    return [change.what for is_healthy in results for change in fleet.probed(engine_id, is_healthy, now)]


def join(fleet, now, **facts):
    """An announced engine that answered its first probe."""
    (change,) = announce(fleet, now, **facts)
    assert probe(fleet, change.engine.id, True, now=now) == ["up"]


def enlist(fleet, now, **facts):
    """A registered engine that answered its first probe."""
    (change,) = register(fleet, now, **facts)
    assert probe(fleet, change.engine.id, True, now=now) == ["up"]


def whats(changes):
    return [change.what for change in changes]


# Joining


def test_a_static_engine_is_down_until_its_first_good_probe(fleet):
    assert whats(fleet.add_static(D_URL, "decode", 0.0)) == ["joined"]
    assert fleet.get(D).state == "down"
    assert fleet.view.decode == ()
    assert probe(fleet, D, False, False, False, False) == []
    assert probe(fleet, D, True) == ["up"]
    assert fleet.view.decode == (fleet.get(D),)
    assert fleet.get(D).incarnation == 0


def test_an_announced_engine_is_down_until_its_first_good_probe(fleet):
    (change,) = announce(fleet, 0.0, is_ppd=True)
    assert (change.what, change.engine.state) == ("joined", "down")
    assert announce(fleet, PERIOD_S, is_ppd=True) == ()
    assert fleet.view.prefill == ()
    assert probe(fleet, P, True, now=PERIOD_S) == ["up"]
    engine = fleet.view.prefill[0]
    assert engine == fleet.get(P)
    assert (engine.url, engine.zmq_address, engine.is_ppd) == (P_URL, "10.0.0.1:21001", True)
    assert announce(fleet, 2 * PERIOD_S, is_ppd=True) == ()


def test_a_missed_first_probe_needs_only_one_good_one_after_it(fleet):
    announce(fleet, 0.0)
    assert probe(fleet, P, False, False, False, False) == []
    assert probe(fleet, P, True) == ["up"]
    assert fleet.get(P).incarnation == 0


def test_a_registration_with_or_without_a_ttl_is_down_until_its_first_good_probe(fleet):
    register(fleet, 0.0, url=P_URL, role="prefill", ttl_s=30.0)
    register(fleet, 0.0, ttl_s=None)
    assert (fleet.get(P).state, fleet.get(D).state) == ("down", "down")
    assert (probe(fleet, P, True), probe(fleet, D, True)) == (["up"], ["up"])
    fleet.expire(10_000.0)
    assert (fleet.get(P), fleet.get(D).state) == (None, "up")


def test_the_view_is_the_same_object_until_something_changes(fleet):
    join(fleet, 0.0)
    view, engines = fleet.view, fleet.engines()
    announce(fleet, 1.0)
    probe(fleet, P, True, False, True)
    fleet.expire(2.0)
    assert fleet.view is view
    assert fleet.engines() is engines
    fleet.drain(P)
    assert fleet.view is not view


def test_the_view_is_ordered_by_id(fleet):
    for host in ("c", "a", "b"):
        join(fleet, 0.0, address=f"{host}:80")
    assert [engine.id for engine in fleet.view.prefill] == ["a:80", "b:80", "c:80"]


# Beats


@pytest.mark.parametrize("lost_pings", [1, 2])
def test_lost_pings_within_the_ttl_do_not_take_an_engine_out(fleet, lost_pings):
    join(fleet, 0.0)
    late = PERIOD_S * (lost_pings + 1) + 0.9
    assert fleet.expire(late) == ()
    assert announce(fleet, late) == ()


def test_a_silent_engine_goes_down_although_nobody_else_pings(fleet):
    join(fleet, 0.0)
    (change,) = fleet.expire(10.0)
    assert (change.what, change.engine.state) == ("down", "down")
    assert "silent" in change.why
    assert fleet.view.prefill == ()


def test_a_dead_engine_behind_a_live_one_goes_down(fleet):
    join(fleet, 0.0, address="a:1")
    join(fleet, 0.0, address="b:1", zmq="b:2")
    for beat in range(1, 5):
        announce(fleet, beat * PERIOD_S, address="a:1")
    assert [change.engine.id for change in fleet.expire(4 * PERIOD_S)] == ["b:1"]
    assert [engine.id for engine in fleet.view.prefill] == ["a:1"]


def test_a_silent_engine_is_back_after_two_beats_as_a_new_incarnation(fleet):
    join(fleet, 0.0)
    fleet.expire(20.0)
    assert announce(fleet, 21.0) == ()
    assert whats(announce(fleet, 24.0)) == ["up"]
    assert fleet.get(P).incarnation == 1


def test_two_beats_far_apart_do_not_bring_an_engine_back(fleet):
    join(fleet, 0.0)
    for beat in range(1, 5):
        announce(fleet, beat * 11.0)
        assert fleet.get(P).state == "down"


def test_a_gap_counts_even_if_nobody_called_expire(fleet):
    join(fleet, 0.0)
    assert whats(announce(fleet, 10.0)) == ["down"]
    assert whats(announce(fleet, 13.0)) == ["up"]
    assert fleet.get(P).incarnation == 1


def test_a_silent_engine_stays_listed_and_then_leaves(fleet):
    join(fleet, 0.0)
    fleet.expire(10.0)
    assert fleet.expire(609.9) == ()
    assert fleet.get(P).state == "down"
    assert whats(fleet.expire(610.0)) == ["left"]
    assert fleet.engines() == ()


def test_a_registered_engine_goes_down_when_its_ttl_passes(fleet):
    enlist(fleet, 0.0, ttl_s=30.0)
    register(fleet, 29.0, ttl_s=30.0)
    assert fleet.expire(58.9) == ()
    assert whats(fleet.expire(59.0)) == ["down"]


def test_an_incarnation_is_never_used_twice_even_after_leaving(fleet):
    announce(fleet, 0.0)
    before = fleet.get(P).incarnation
    fleet.remove(P)
    announce(fleet, 1.0)
    assert fleet.get(P).incarnation > before


# Probes


def test_three_missed_probes_in_a_row_take_an_engine_out_and_two_good_ones_bring_it_back(fleet):
    fleet.add_static(D_URL, "decode", 0.0)
    probe(fleet, D, True)
    assert probe(fleet, D, False, False, True, False, False) == []
    assert probe(fleet, D, False) == ["down"]
    assert probe(fleet, D, True, False, True) == []
    assert probe(fleet, D, True) == ["up"]
    assert fleet.get(D).incarnation == 1


def test_a_failed_leg_counts_as_a_missed_probe(fleet):
    join(fleet, 0.0)
    probe(fleet, P, False)
    assert fleet.leg_failed(P, 0.0) == ()
    assert whats(fleet.leg_failed(P, 0.0)) == ["down"]


def test_a_live_beat_does_not_bring_back_an_engine_whose_probes_fail(fleet):
    join(fleet, 0.0)
    probe(fleet, P, False, False, False)
    for beat in range(1, 5):
        assert announce(fleet, beat * PERIOD_S) == ()
    assert fleet.get(P).state == "down"
    assert probe(fleet, P, True, True, now=13.0) == ["up"]


def test_good_probes_do_not_bring_back_an_engine_whose_beats_stopped(fleet):
    join(fleet, 0.0)
    fleet.expire(10.0)
    assert probe(fleet, P, True, True, True, now=11.0) == []
    announce(fleet, 12.0)
    assert whats(announce(fleet, 15.0)) == ["up"]


def test_results_for_engines_that_left_are_ignored(fleet):
    assert fleet.probed("gone:1", True, 0.0) == fleet.probed("gone:1", False, 0.0) == ()
    assert fleet.leg_failed("gone:1", 0.0) == fleet.drain("gone:1") == fleet.remove("gone:1") == ()


# Restarts and what is stated


@pytest.mark.parametrize("what", [{"zmq": "10.0.0.1:21009"}, {"role": "decode"}])
def test_another_zmq_address_or_role_is_a_restarted_engine(fleet, what):
    join(fleet, 0.0)
    (change,) = announce(fleet, 1.0, **what)
    assert (change.what, change.engine.incarnation) == ("up", 1)
    assert "another role or ZMQ address" in change.why
    assert announce(fleet, 2.0, **what) == ()


def test_a_heartbeat_without_details_keeps_what_was_stated(fleet):
    register(fleet, 0.0, handoff="none", zmq="10.0.0.2:22001")
    assert register(fleet, 1.0) == ()
    assert (fleet.get(D).handoff, fleet.get(D).zmq_address) == ("none", "10.0.0.2:22001")


def test_announcements_do_not_fight_with_a_registration(fleet):
    register(fleet, 0.0, url=P_URL, role="decode", zmq="192.168.0.1:21001")
    announce(fleet, 1.0, role="prefill", zmq="10.0.0.1:21001")
    assert (fleet.get(P).role, fleet.get(P).zmq_address) == ("decode", "192.168.0.1:21001")
    assert fleet.get(P).incarnation == 0


def test_a_registration_may_change_the_role_which_is_a_restart(fleet):
    enlist(fleet, 0.0)
    (change,) = register(fleet, 1.0, role="aggregated")
    assert (change.engine.role, change.engine.incarnation) == ("aggregated", 1)
    assert fleet.view.decode == ()
    assert fleet.view.aggregated == (change.engine,)


@pytest.mark.parametrize(
    ("default", "stated", "zmq", "expected"),
    [
        ("auto", None, None, "nixl"),
        ("auto", None, "h:1", "p2p_nccl"),
        ("auto", "none", "h:1", "none"),
        ("none", None, "h:1", "none"),
        ("p2p_nccl", None, None, "p2p_nccl"),
        ("nixl", "p2p_nccl", None, "p2p_nccl"),
    ],
)
def test_the_handoff_is_the_stated_one_then_the_default_then_what_the_engine_shows(default, stated, zmq, expected):
    fleet = Fleet(default_handoff=default)
    register(fleet, 0.0, handoff=stated, zmq=zmq)
    assert fleet.get(D).handoff == expected


# Draining and removing


def test_a_draining_engine_stays_listed_and_takes_no_new_requests(fleet):
    join(fleet, 0.0)
    assert whats(fleet.drain(P)) == ["draining"]
    assert fleet.view.prefill == ()
    assert [engine.state for engine in fleet.engines()] == ["draining"]
    assert fleet.get(P).incarnation == 0


def test_neither_heartbeats_nor_a_restart_undo_draining(fleet):
    enlist(fleet, 0.0)
    fleet.drain(D)
    assert register(fleet, 1.0) == ()
    assert whats(fleet.expire(31.0)) == ["down"]
    register(fleet, 32.0)
    assert whats(register(fleet, 33.0)) == ["draining"]
    assert fleet.get(D).incarnation == 1


def test_registering_after_removing_starts_anew(fleet):
    register(fleet, 0.0, handoff="none")
    fleet.drain(D)
    assert whats(fleet.remove(D)) == ["left"]
    assert fleet.engines() == ()
    assert whats(register(fleet, 1.0)) == ["joined"]
    assert probe(fleet, D, True, now=1.0) == ["up"]
    assert (fleet.get(D).state, fleet.get(D).handoff) == ("up", "nixl")


# Whatever happens

STEPS = st.lists(
    st.tuples(st.sampled_from(["beat", "good", "bad", "drain", "remove", "expire"]), st.floats(0.1, 700.0)), max_size=40
)


@settings(deadline=None)  # a busy machine is not a failure
@given(STEPS)
def test_an_engine_that_was_down_or_gone_never_comes_back_as_the_same_incarnation(steps):
    fleet, now, dead = Fleet(default_handoff="auto"), 0.0, set()
    for what, wait_s in steps:
        now += wait_s
        match what:
            case "beat":
                changes = announce(fleet, now)
            case "good" | "bad":
                changes = fleet.probed(P, what == "good", now)
            case "drain":
                changes = fleet.drain(P)
            case "remove":
                changes = fleet.remove(P)
            case _:
                changes = fleet.expire(now)
        for change in changes:
            if change.what in ("down", "left"):
                dead.add(change.engine.incarnation)
        engine = fleet.get(P)
        assert fleet.engines() == ((engine,) if engine else ())
        assert fleet.view.prefill == ((engine,) if engine and engine.state == "up" else ())
        if engine and engine.state != "down":
            assert engine.incarnation not in dead
