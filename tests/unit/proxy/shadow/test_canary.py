"""How often draft acceptance is compared, and what one comparison may cost."""

import pytest

from ppd_accuracy.verdicts.speculation import drop
from ppd_proxy.shadow.canary import Canary
from ppd_wire.metrics.spec_counters import SpecCounters

WINDOW_S = 300.0
FALSE_ALARMS = 0.01
A_LOOK = FALSE_ALARMS / 288


def drafts(accepted: int, count: int = 1000) -> SpecCounters:
    """One token each, `accepted` of which were."""
    return SpecCounters(drafts=count, draft_tokens=count, accepted_tokens=accepted, per_position=(accepted,))


HEALTHY = drafts(700)
UNSURE = drafts(614)
"""Too few for one comparison a look, not for one of two."""


class World:
    def __init__(self) -> None:
        self.gains = {"d": HEALTHY, "e": HEALTHY, "b": HEALTHY, "c": HEALTHY}
        self.canary = Canary(self.gains.get, window_s=WINDOW_S, false_alarms=FALSE_ALARMS)

    def look(self, now: float, decodes: tuple[str, ...] = ("d",), baselines: tuple[str, ...] = ("b",)) -> str | None:
        return self.canary.look(decodes, baselines, now)


def test_an_engine_that_accepts_fewer_drafts_is_named() -> None:
    world = World()
    world.gains["e"] = drafts(100)
    assert (world.look(0.0, ("d", "e")) or "").startswith("e accepts fewer drafts")


@pytest.mark.parametrize("unknown", ["d", "b"])
def test_an_engine_that_tells_nothing_is_not_compared(unknown: str) -> None:
    world = World()
    world.gains["d"] = drafts(100)
    del world.gains[unknown]
    assert world.look(0.0) is None
    assert World().look(0.0, (), ()) is None


def test_engines_are_compared_once_in_a_window_however_often_one_asks() -> None:
    world = World()
    assert world.look(0.0) is None
    world.gains["d"] = drafts(100)
    assert not any(world.look(float(second)) for second in range(1, 300))
    assert world.look(300.0) is not None
    world.gains["d"] = HEALTHY
    assert all(world.look(float(second)) for second in range(301, 600))
    assert world.look(600.0) is None


def test_a_days_looks_share_the_false_alarms() -> None:
    asked = []
    canary = Canary(lambda engine: asked.append(engine), window_s=WINDOW_S, false_alarms=FALSE_ALARMS)
    for second in range(86400):
        canary.look(("d",), ("b",), float(second))
    assert asked.count("d") * A_LOOK == pytest.approx(FALSE_ALARMS)


@pytest.mark.parametrize(("decodes", "baselines"), [(("d", "e"), ("b",)), (("d",), ("b", "c"))])
def test_the_comparisons_of_a_look_share_its_false_alarms(decodes: tuple[str, ...], baselines: tuple[str, ...]) -> None:
    assert drop(UNSURE, HEALTHY, A_LOOK).verdict == "dropped"
    assert drop(UNSURE, HEALTHY, A_LOOK / 2).verdict != "dropped"
    world = World()
    world.gains["d"] = UNSURE
    assert world.look(0.0) is not None
    assert world.look(WINDOW_S, decodes, baselines) is None
