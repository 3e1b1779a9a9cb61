
import pytest
from prometheus_client import CollectorRegistry

from ppd_core.fleet.drafts import WINDOW_S
from ppd_core.fleet.engine import Engine
from ppd_core.fleet.load import Load
from ppd_core.fleet.readings import Readings
from ppd_proxy.telemetry.cells import Live
from ppd_proxy.telemetry.instruments import INSTRUMENTS
from ppd_proxy.telemetry.speculation import draft_families
from ppd_wire.metrics.scraped import UNKNOWN, EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters

D, BASELINE = "10.0.0.2:8200", "10.0.0.9:8300"
LENGTH, RATE = "ppd_spec_acceptance_length", "ppd_spec_acceptance_rate"
NONE = SpecCounters(0, 0, 0, (0, 0, 0))
TEN = SpecCounters(10, 30, 14, (8, 5, 1))
TWENTY = SpecCounters(20, 60, 44, (18, 15, 11))


def engine(engine_id, role):
    return Engine(id=engine_id, url=f"http://{engine_id}", role=role, handoff="nixl", state="up", source="static")


class World:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.decode, self.baseline = engine(D, "decode"), engine(BASELINE, "aggregated")
        self.engines, self.baselines = [self.decode], [self.baseline]
        self.readings = Readings(engines=lambda: self.engines, load=Load(), baselines=lambda: self.baselines)
        Live(self.registry, lambda: draft_families(self.readings))

    def read(self, spec, now, process_start_s=1.0, who=None):
        self.readings.scraped(who or self.decode, EngineFigures(spec=spec, process_start_s=process_start_s), now)

    def value(self, name, engine_id=D, **labels):
        return self.registry.get_sample_value(name, {"engine": engine_id, **labels})

    def rates(self):
        return [self.value(RATE, position=position) for position in ("all", "0", "1", "2")]


@pytest.fixture
def world():
    return World()


def test_acceptance_is_that_of_the_drafts_between_readings(world):
    world.read(NONE, 0)
    assert world.value(LENGTH) is None
    world.read(TEN, 5)
    assert world.value(LENGTH) == pytest.approx(2.4)
    assert world.rates() == pytest.approx([14 / 30, 0.8, 0.5, 0.1])


def test_what_was_counted_before_the_first_reading_is_not_in_the_window(world):
    world.read(TEN, 0)
    world.read(TWENTY, 5)
    assert world.value(LENGTH) == pytest.approx(4)
    assert world.rates() == [1, 1, 1, 1]


def test_without_a_draft_in_the_window_no_acceptance_is_shown(world):
    world.read(TEN, 0)
    world.read(TEN, 5)
    assert world.value(LENGTH) is None
    assert world.value(RATE, position="all") is None


def test_counters_since_the_start_are_shown_as_the_engine_tells_them(world):
    world.read(TEN, 0)
    assert world.value("ppd_engine_spec_drafts_total") == 10
    assert world.value("ppd_engine_spec_draft_tokens_total") == 30
    assert world.value("ppd_engine_spec_accepted_tokens_total", position="1") == 5


def test_after_a_restart_only_the_new_life_counts(world):
    world.read(NONE, 0)
    world.read(TWENTY, 5)
    world.read(TEN, 10, process_start_s=9.0)
    assert world.value(LENGTH) == pytest.approx(2.4)
    world.read(SpecCounters(4, 8, 8, (4, 4)), 15, process_start_s=14.0)
    assert world.value(LENGTH) == pytest.approx(3)
    assert world.value(RATE, position="2") is None


def test_a_failed_reading_hides_the_counters_and_ends_the_window_in_time(world):
    world.read(NONE, 0)
    world.read(TEN, 5)
    world.readings.scraped(world.decode, UNKNOWN, 10)
    assert world.value("ppd_engine_spec_drafts_total") is None
    assert world.value(LENGTH) == pytest.approx(2.4)
    world.readings.scraped(world.decode, UNKNOWN, WINDOW_S + 5)
    assert world.value(LENGTH) is None


def test_an_engine_that_does_not_speculate_shows_nothing(world):
    world.read(None, 0)
    world.read(None, 5)
    assert world.value(LENGTH) is None
    assert world.value("ppd_engine_spec_drafts_total") is None


def test_the_acceptance_of_a_baseline_is_shown(world):
    world.read(NONE, 0, who=world.baseline)
    world.readings.scraped(world.baseline, EngineFigures(spec=TEN, running=3, local_hits=5), 5)
    assert world.value(LENGTH, BASELINE) == pytest.approx(2.4)


def test_engines_that_left_are_not_shown(world):
    world.read(NONE, 0)
    world.read(TEN, 5)
    world.engines.clear()
    assert world.value(LENGTH) is None


def test_names_and_labels_are_those_of_the_table(world):
    world.read(NONE, 0)
    world.read(TEN, 5)
    table = {instrument.name: instrument for instrument in INSTRUMENTS}
    shown = [family for family in world.registry.collect() if "spec" in family.name]
    assert len(shown) == 5
    for family in shown:
        instrument = table[family.name + ("_total" if family.type == "counter" else "")]
        assert family.samples
        assert all(set(sample.labels) == set(instrument.labels) for sample in family.samples)
