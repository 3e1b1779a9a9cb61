"""Engines that do not answer in time: silence is not refusal, and the last engine of a role is not lost to it."""

import pytest

from ppd_core.fleet.fleet import Fleet

D1, D2, P = "10.0.0.1:8200", "10.0.0.2:8200", "10.0.0.3:8100"


@pytest.fixture
def fleet():
    """Two decode engines and one prefill engine, all up."""
    fleet = Fleet(default_handoff="nixl")
    for engine_id, role in ((D1, "decode"), (D2, "decode"), (P, "prefill")):
        fleet.add_static(f"http://{engine_id}", role, 0.0)
        fleet.probed(engine_id, True, 0.0)
    return fleet


def late(fleet, engine_id, times):
    return [change.what for _ in range(times) for change in fleet.late(engine_id, 1.0)]


def missed(fleet, engine_id, times):
    return [change.what for _ in range(times) for change in fleet.probed(engine_id, False, 1.0)]


def test_six_late_answers_in_a_row_take_an_engine_out(fleet):
    assert late(fleet, D1, 5) == []
    assert late(fleet, D1, 1) == ["down"]
    assert fleet.found_dead(D1) == "silence"
    assert [engine.id for engine in fleet.view.decode] == [D2]


def test_a_good_probe_in_between_begins_anew(fleet):
    assert late(fleet, D1, 5) == []
    fleet.probed(D1, True, 1.0)
    assert late(fleet, D1, 5) == []
    assert fleet.found_dead(D1) is None


def test_the_last_engine_of_a_role_is_not_taken_out_for_lateness(fleet):
    assert late(fleet, P, 50) == []
    assert fleet.get(P).state == "up"
    assert late(fleet, D1, 6) == ["down"]
    assert late(fleet, D2, 50) == []


def test_the_last_engine_of_a_role_is_taken_out_when_it_refuses(fleet):
    assert missed(fleet, P, 3) == ["down"]
    assert fleet.found_dead(P) == "refusals"


def test_an_engine_that_was_spared_goes_as_soon_as_another_one_is_up(fleet):
    late(fleet, P, 20)
    fleet.add_static("http://10.0.0.4:8100", "prefill", 2.0)
    assert late(fleet, P, 1) == []
    fleet.probed("10.0.0.4:8100", True, 2.0)
    assert late(fleet, P, 1) == ["down"]


@pytest.mark.parametrize(("refusals", "lates"), [(1, 4), (2, 2)])
def test_refusals_and_lateness_add_up(fleet, refusals, lates):
    assert missed(fleet, D1, refusals) == []
    assert late(fleet, D1, lates - 1) == []
    assert late(fleet, D1, 1) == ["down"]


def test_a_late_answer_does_not_help_an_engine_back(fleet):
    missed(fleet, D1, 3)
    fleet.probed(D1, True, 2.0)
    late(fleet, D1, 1)
    assert [change.what for change in fleet.probed(D1, True, 3.0)] == []
    assert [change.what for change in fleet.probed(D1, True, 4.0)] == ["up"]


def test_an_engine_whose_beats_alone_stopped_is_not_dead_to_those_who_wait():
    fleet = Fleet(default_handoff="auto")
    fleet.announce(role="prefill", http_address=P, zmq_address="10.0.0.3:21001", is_ppd=False, now=0.0)
    fleet.probed(P, True, 0.0)
    fleet.expire(11.0)
    assert fleet.get(P).state == "down"
    assert fleet.found_dead(P) is None


def test_lateness_of_an_engine_that_left_changes_nothing(fleet):
    fleet.remove(D1)
    assert fleet.late(D1, 1.0) == ()
    assert fleet.found_dead(D1) is None
