"""Engines whose answers fail although their probes are good: set aside, tried, back with one good answer."""

import pytest

from ppd_core.fleet.fleet import Fleet
from ppd_core.fleet.signs import FAILED_RUN, TRIAL_INTERVAL_S

D1, D2 = "10.0.0.1:8200", "10.0.0.2:8200"


@pytest.fixture
def fleet():
    fleet = Fleet(default_handoff="nixl")
    for engine_id in (D1, D2):
        fleet.add_static(f"http://{engine_id}", "decode", 0.0)
        fleet.probed(engine_id, True, 0.0)
    return fleet


def failed(fleet, times, *, now=10.0):
    return [change for _ in range(times) for change in fleet.answered(D1, "status 500", now)]


def test_an_engine_whose_last_five_answers_all_failed_is_unhealthy(fleet):
    assert failed(fleet, FAILED_RUN - 1) == []
    (change,) = failed(fleet, 1)
    assert (change.what, change.engine.id, change.engine.state) == ("unhealthy", D1, "unhealthy")
    assert change.why == "5 answers in a row failed, the last one: status 500"
    assert failed(fleet, 10) == []


def test_it_can_still_be_taken_where_there_is_no_other(fleet):
    failed(fleet, FAILED_RUN)
    assert [engine.id for engine in fleet.view.decode] == [D1, D2]
    assert fleet.view.unhealthy == {D1}


def test_one_good_answer_in_between_begins_anew(fleet):
    failed(fleet, FAILED_RUN - 1)
    assert fleet.answered(D1, None, 10.0) == ()
    assert failed(fleet, FAILED_RUN - 1) == []


def test_one_good_answer_is_enough_to_be_back_and_its_homes_are_still_homes(fleet):
    incarnation = fleet.get(D1).incarnation
    failed(fleet, FAILED_RUN)
    (change,) = fleet.answered(D1, None, 20.0)
    assert (change.what, change.engine.incarnation) == ("up", incarnation)
    assert fleet.view.unhealthy == frozenset()


def test_good_probes_do_not_bring_it_back(fleet):
    failed(fleet, FAILED_RUN)
    for _ in range(10):
        assert fleet.probed(D1, True, 20.0) == ()


def test_it_gets_one_trial_every_two_seconds(fleet):
    failed(fleet, FAILED_RUN, now=10.0)
    assert fleet.due_trials(10.0 + TRIAL_INTERVAL_S - 0.1) == frozenset()
    assert fleet.due_trials(10.0 + TRIAL_INTERVAL_S) == {D1}
    fleet.tried(D1, 12.5)
    assert fleet.due_trials(14.4) == frozenset()
    failed(fleet, 3, now=14.4)  # what fails later does not put the next trial off
    assert fleet.due_trials(14.5) == {D1}


def test_an_engine_that_was_down_comes_back_with_a_clean_slate(fleet):
    failed(fleet, FAILED_RUN)
    for is_healthy in (False, False, False, True, True):
        fleet.probed(D1, is_healthy, 20.0)
    assert fleet.get(D1).state == "up"
    assert failed(fleet, FAILED_RUN - 1) == []


def test_a_drained_engine_stays_draining(fleet):
    fleet.drain(D1)
    failed(fleet, FAILED_RUN)
    assert fleet.get(D1).state == "draining"
    assert fleet.view.unhealthy == frozenset()


def test_answers_of_an_engine_that_left_change_nothing(fleet):
    fleet.remove(D1)
    assert failed(fleet, FAILED_RUN) == []
    assert fleet.answered(D1, None, 1.0) == ()
    fleet.tried(D1, 1.0)
