from dataclasses import FrozenInstanceError, replace
from typing import get_args

import pytest
from tests.support.builders import decode

from ppd_core.fleet.engine import HANDOFFS, ROLES, FleetView, HandoffName, Role


def test_every_name_is_listed_in_its_order():
    assert (ROLES, HANDOFFS) == (get_args(Role), get_args(HandoffName))


def test_a_restarted_engine_is_another_value():
    engine = decode("d1")
    again = replace(engine, incarnation=engine.incarnation + 1)
    assert again != engine
    assert len({engine, again, decode("d1")}) == 2
    with pytest.raises(FrozenInstanceError):
        engine.state = "down"


def test_a_fleet_without_engines_has_none_of_any_role():
    assert all(getattr(FleetView(), role) == () for role in ROLES)
