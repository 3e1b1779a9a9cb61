"""One try to serve a request."""

import pytest
from tests.support.builders import KEY, direct_plan, pd_plan

from ppd_core.conversation.history import Home
from ppd_core.handoff.registry import HANDOFFS
from ppd_proxy.request.attempt import Attempt
from ppd_wire.requests.asked import NOTHING

HOME = Home(engine_id="d1:8000", incarnation=0, held_tokens=20, filled_by=("p7:8000",))


def tried(plan, home=None):
    return Attempt(
        plan=plan, handoff=HANDOFFS["nixl"], key=KEY, engine_id=KEY, salt="", home=home, asked=NOTHING, is_scored=False,
        is_retry=False, reservations=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "home", "has_kv", "filled_by"),
    [
        (pd_plan(), None, True, ("p1:8000",)),
        (pd_plan(), None, False, ()),
        (pd_plan(), HOME, True, ("p7:8000", "p1:8000")),
        (pd_plan("p7"), HOME, True, ("p7:8000",)),
        (direct_plan(), HOME, None, ("p7:8000",)),
        (direct_plan(), None, None, ()),
    ],
)
def test_an_answer_relies_on_the_kv_of_its_home_and_of_its_prefill_engine(plan, home, has_kv, filled_by):
    assert tried(plan, home).filled_by(has_kv=has_kv) == filled_by


def test_the_engines_id_is_what_the_client_never_sees():
    assert tried(direct_plan()).hidden_id == KEY.encode()
