from dataclasses import replace

import pytest
from tests.support.builders import decode

from ppd_core.fleet.member import Member
from ppd_core.fleet.signs import FAILED_RUN, Signal

ENGINE = replace(decode("d1"), source="announced", zmq_address="10.0.0.2:22001", is_ppd=True)


def member(**facts):
    known = {"engine": ENGINE, "beats": Signal(), "probes": Signal(), "beat_at": 0.0, "silence_s": None}
    return Member(**known | facts)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "up"),
        ({"failed_answers": FAILED_RUN - 1}, "up"),
        ({"failed_answers": FAILED_RUN}, "unhealthy"),
        ({"failed_answers": FAILED_RUN, "is_drained": True}, "draining"),
        ({"is_drained": True, "beats": Signal(is_good=False)}, "down"),
        ({"is_drained": True, "probes": Signal(is_good=False)}, "down"),
    ],
)
def test_the_worst_sign_says_the_state(facts, state):
    assert member(**facts).state == state


def test_what_only_an_announcement_said_is_forgotten_when_the_engine_is_named():
    assert member().known(trust_announced=True) == ENGINE
    assert member().known(trust_announced=False) == replace(ENGINE, zmq_address=None, is_ppd=False)
    named = replace(ENGINE, source="registered")
    assert member(engine=named).known(trust_announced=False) == named


def test_what_somebody_stated_is_stronger_than_what_the_engine_says():
    assert member().completed("z:1", is_ppd=False) == replace(ENGINE, zmq_address="z:1", is_ppd=False)
    stated = member(stated_zmq_address="z:9", stated_ppd=True)
    assert stated.completed("z:1", is_ppd=False) == replace(ENGINE, zmq_address="z:9", is_ppd=True)
