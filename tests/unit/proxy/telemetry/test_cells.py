import pytest
from prometheus_client import CollectorRegistry

from ppd_proxy.telemetry.cells import Counters, Histograms, Live, counter_family, gauge_family, summary_family
from ppd_proxy.telemetry.instrument import Instrument

ROUTES = Instrument(name="ppd_a_total", kind="counter", group="kv", labels=("route",), help="A.")
PLAIN = Instrument(name="ppd_b_total", kind="counter", group="kv", help="B.")
TIMES = Instrument(name="ppd_c_seconds", kind="histogram", group="kv", labels=("route",), buckets=(0.1, 1), help="C.")
LEVEL = Instrument(name="ppd_d", kind="gauge", group="kv", labels=("engine",), help="D.")
SUMMARY = Instrument(name="ppd_e_seconds", kind="summary", group="kv", help="E.")


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_a_series_exists_from_its_first_count_on_and_one_without_labels_at_once(registry):
    routes, plain = Counters(registry, ROUTES), Counters(registry, PLAIN)
    assert registry.get_sample_value("ppd_a_total", {"route": "pd"}) is None
    assert registry.get_sample_value("ppd_b_total") == 0
    routes.add(("pd",), 0)
    assert registry.get_sample_value("ppd_a_total", {"route": "pd"}) == 0
    routes.add(("pd",), 2.5)
    routes.add(("pd",))
    plain.add(())
    assert registry.get_sample_value("ppd_a_total", {"route": "pd"}) == 3.5
    assert registry.get_sample_value("ppd_b_total") == 1


def test_buckets_are_cumulative_and_hold_their_upper_bound(registry):
    times = Histograms(registry, TIMES)
    for value in (0.05, 0.1, 0.5, 7):
        times.observe(("pd",), value)
    counts = [
        registry.get_sample_value("ppd_c_seconds_bucket", {"route": "pd", "le": le}) for le in ("0.1", "1.0", "+Inf")
    ]
    assert counts == [2, 3, 4]
    assert registry.get_sample_value("ppd_c_seconds_sum", {"route": "pd"}) == pytest.approx(7.65)


def test_live_families_are_made_anew_for_each_page(registry):
    levels = {("d",): 1.0}
    Live(registry, lambda: [gauge_family(LEVEL, levels.items())])
    assert registry.get_sample_value("ppd_d", {"engine": "d"}) == 1
    levels["d",] = 2.0
    assert registry.get_sample_value("ppd_d", {"engine": "d"}) == 2


def test_families_take_more_values_than_they_began_with():
    family = counter_family(ROUTES, [(("pd",), 1.0)])
    family.add_metric(("direct",), 2)
    assert [(sample.labels["route"], sample.value) for sample in family.samples] == [("pd", 1), ("direct", 2)]
    assert (family.type, gauge_family(LEVEL).type, summary_family(SUMMARY).type) == ("counter", "gauge", "summary")
