"""The handoff protocols by name."""

import pytest
from tests.support.builders import decode, prefill

from ppd_core.fleet.engine import HANDOFFS as NAMES
from ppd_core.handoff.registry import HANDOFFS


def test_every_handoff_is_registered_under_its_name():
    assert set(HANDOFFS) == set(NAMES)
    assert all(handoff.name == name for name, handoff in HANDOFFS.items())


@pytest.mark.parametrize("p", NAMES)
@pytest.mark.parametrize("d", NAMES)
def test_only_engines_of_the_same_handoff_pair(p, d):
    for handoff in HANDOFFS.values():
        can_pair = handoff.can_pair(prefill(handoff=p), decode(handoff=d))
        assert can_pair == (p == d == handoff.name)
