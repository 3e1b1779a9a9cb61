"""What one request shows of its conversation."""

import pytest

from ppd_core.conversation.history import History, Home


def test_nothing_is_known_of_a_first_request():
    history = History()
    assert (history.turn, history.is_complete, history.has_answers, history.home) == (1, False, False, None)


def test_the_turn_comes_after_the_answers_that_are_known():
    assert [History(known_answers=known).turn for known in range(3)] == [1, 2, 3]


def test_equal_histories_are_equal_values():
    home = Home(engine_id="d1", incarnation=1, held_tokens=20)
    assert History(home=home) == History(home=Home(engine_id="d1", incarnation=1, held_tokens=20))
    assert History(home=home) != History(home=Home(engine_id="d1", incarnation=2, held_tokens=20))


def test_a_home_computed_everything_itself_unless_it_is_said_who_filled_it():
    home = Home(engine_id="d1", incarnation=0, held_tokens=0)
    assert (home.filled_by, home.salt) == ((), "")


def test_a_history_does_not_change():
    with pytest.raises(AttributeError):
        History().known_answers = 1
