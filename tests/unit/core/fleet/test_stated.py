import math

import pytest

from ppd_core.fleet.engine import HANDOFFS, ROLES
from ppd_core.fleet.stated import check_handoff, check_role, check_ttl
from ppd_wire.errors import BadRequest


def test_what_is_right_comes_back():
    assert [check_role(role) for role in ROLES] == list(ROLES)
    assert [check_handoff(handoff) for handoff in (*HANDOFFS, None)] == [*HANDOFFS, None]
    for ttl_s in (None, 1, 0.5):
        check_ttl(ttl_s)


@pytest.mark.parametrize(
    ("check", "value", "field"),
    [
        (check_role, "Decode", "role"),
        (check_handoff, "", "handoff"),
        *((check_ttl, value, "ttl_s") for value in (0, -1.0, math.inf, math.nan, True, "10")),
    ],
)
def test_what_is_wrong_is_named_with_its_field(check, value, field):
    with pytest.raises(BadRequest, match=f"{field} is {value!r}; it must be") as caught:
        check(value)
    assert (caught.value.param, caught.value.status) == (field, 400)
