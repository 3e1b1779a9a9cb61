import pytest

from ppd_core.fleet.load import FAILED_HALF_LIFE_S, MIN_FAILED_TOKENS, Load


def test_reservations_of_one_engine_add_up():
    load = Load()
    load.reserve("d:1", 100)
    load.reserve("d:1", 20)
    load.reserve("d:2", 5)
    assert load.tokens == {"d:1": 120, "d:2": 5}
    assert load.requests == {"d:1": 2, "d:2": 1}


def test_release_counts_once_however_often_it_is_called():
    load = Load()
    load.reserve("d:1", 100)
    second = load.reserve("d:1", 20)
    second.release()
    second.release()
    assert load.tokens == {"d:1": 100}
    assert load.requests == {"d:1": 1}


def test_an_engine_without_work_has_no_entry():
    load = Load()
    empty, full = load.reserve("d:1", 0), load.reserve("d:2", 7)
    assert load.tokens == {"d:2": 7}
    assert load.requests == {"d:1": 1, "d:2": 1}
    empty.release()
    full.release()
    assert load.tokens == {}
    assert load.requests == {}


def test_negative_tokens_are_refused_and_nothing_is_counted():
    load = Load()
    with pytest.raises(ValueError, match="tokens is -1"):
        load.reserve("d:1", -1)
    assert load.requests == {}


def test_what_failed_counts_as_load_for_a_while():
    load = Load()
    load.reserve("d:1", 100)
    load.note_failed("d:1", 1000, now=50.0)
    load.note_failed("d:2", 400, now=50.0)
    assert load.weighed(50.0) == {"d:1": 1100, "d:2": 400}
    assert load.weighed(50.0 + FAILED_HALF_LIFE_S) == {"d:1": 600, "d:2": 200}
    assert load.tokens == {"d:1": 100}


def test_failures_add_up_and_are_forgotten():
    load = Load()
    for _ in range(3):
        load.note_failed("d:1", 100, now=50.0)
    assert load.weighed(50.0) == {"d:1": 300}
    assert load.weighed(50.0 + 20 * FAILED_HALF_LIFE_S) == {}
    assert load.weighed(50.0) is load.tokens


def test_the_failure_of_a_short_request_counts_too():
    load = Load()
    load.note_failed("d:1", 0, now=50.0)
    assert load.weighed(50.0 + 2 * FAILED_HALF_LIFE_S) == {"d:1": MIN_FAILED_TOKENS // 4}
