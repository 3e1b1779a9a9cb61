"""Homes as numbers."""

import msgspec
import pytest

from ppd_core.conversation.history import Home
from ppd_core.conversation.homes import Homes

HOME = Home(engine_id="d1:8000", incarnation=1, held_tokens=7, filled_by=("p1:8000",), salt="s")


@pytest.fixture
def homes():
    return Homes()


def had(homes, home=HOME):
    number = homes.number(home)
    homes.segments[number] += 1
    return number


def test_homes_that_differ_in_their_tokens_alone_are_one(homes):
    number = had(homes)
    assert homes.number(msgspec.structs.replace(HOME, held_tokens=9)) == number
    assert homes.at(number, 9) == msgspec.structs.replace(HOME, held_tokens=9)


@pytest.mark.parametrize("fact", [{"engine_id": "d2"}, {"incarnation": 2}, {"filled_by": ()}, {"salt": ""}])
def test_any_other_difference_makes_another(homes, fact):
    assert had(homes) != homes.number(msgspec.structs.replace(HOME, **fact))


def test_a_number_that_nothing_has_is_given_again(homes):
    number = had(homes)
    homes.left(number)
    other = msgspec.structs.replace(HOME, salt="other")
    assert had(homes, other) == number
    assert homes.at(number, 0).salt == "other"


def test_what_is_bad_is_forgotten_for_all_at_once(homes):
    good, bad = had(homes), had(homes, msgspec.structs.replace(HOME, engine_id="d2:8000"))
    homes.leaves[bad] = 3
    assert homes.forget(lambda home: home.engine_id == "d2:8000") == 3
    assert (homes.at(bad, 1), homes.at(good, 1).engine_id) == (None, "d1:8000")
    assert had(homes, msgspec.structs.replace(HOME, engine_id="d2:8000")) != bad
    homes.left(bad)
