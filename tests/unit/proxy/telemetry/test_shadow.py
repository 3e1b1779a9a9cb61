import math

import pytest
from prometheus_client import CollectorRegistry

from ppd_proxy.telemetry.instruments import INSTRUMENTS
from ppd_proxy.telemetry.shadow import ShadowMetrics

VERDICTS = ("green", "amber", "red", "unknown")


class World:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.verdicts = {}
        self.metrics = ShadowMetrics(
            self.registry, verdicts=lambda: self.verdicts, guard_actions=("distrust_pair", "trust_pair")
        )

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    def verdict(self, scope):
        shown = {verdict: self.value("ppd_shadow_verdict", scope=scope, verdict=verdict) for verdict in VERDICTS}
        assert sum(shown.values()) == 1
        return max(shown, key=shown.get)


@pytest.fixture
def world():
    return World()


def test_samples_and_drops_are_counted(world):
    world.metrics.sampled("pd", "same")
    world.metrics.sampled("pd", "same")
    world.metrics.dropped("baseline_busy")
    assert world.value("ppd_shadow_samples_total", route="pd", outcome="same") == 2
    assert world.value("ppd_shadow_dropped_total", reason="baseline_busy") == 1


def test_figures_are_observed_by_route(world):
    world.metrics.judged("direct", 0.99, 0.02, 3, -7)
    assert world.value("ppd_shadow_token_accuracy_bucket", route="direct", le="0.98") == 0
    assert world.value("ppd_shadow_token_accuracy_bucket", route="direct", le="0.99") == 1
    assert world.value("ppd_shadow_logprob_delta_sum", route="direct") == pytest.approx(0.02)
    assert world.value("ppd_shadow_first_divergence_tokens_sum", route="direct") == 3
    assert world.value("ppd_shadow_length_delta_tokens_sum", route="direct") == 7


def test_what_a_method_does_not_tell_is_not_observed(world):
    world.metrics.judged("pd", max_delta=0.5)
    assert world.value("ppd_shadow_logprob_delta_count", route="pd") == 1
    for name in ("token_accuracy", "first_divergence_tokens", "length_delta_tokens"):
        assert world.value(f"ppd_shadow_{name}_count", route="pd") is None


@pytest.mark.parametrize("delta", [math.nan, math.inf, 1e9])
def test_a_delta_that_is_no_number_counts_as_very_large(world, delta):
    world.metrics.judged("pd", max_delta=delta)
    world.metrics.noise(delta)
    assert world.value("ppd_shadow_logprob_delta_bucket", route="pd", le="20.0") == 0
    assert world.value("ppd_shadow_logprob_delta_sum", route="pd") == 100
    assert world.value("ppd_shadow_noise_logprob_delta_sum") == 100


def test_verdicts_are_read_when_metrics_are(world):
    assert world.verdict("all") == "unknown"
    world.verdicts = {"all": "green", "pair:a:1>b:2": "red"}
    assert (world.verdict("all"), world.verdict("pair:a:1>b:2")) == ("green", "red")
    world.verdicts = {"all": "amber"}
    assert world.verdict("all") == "amber"
    assert world.value("ppd_shadow_verdict", scope="pair:a:1>b:2", verdict="red") is None


def test_guard_actions_begin_at_0_so_that_the_first_one_is_an_increase(world):
    assert world.value("ppd_guard_actions_total", action="trust_pair") == 0
    world.metrics.guard_acted("distrust_pair")
    assert world.value("ppd_guard_actions_total", action="distrust_pair") == 1


def test_words_cannot_make_endless_series(world):
    for number in range(100):
        world.metrics.sampled("pd", f"word{number}")
        world.metrics.dropped(f"word{number}")
        world.metrics.guard_acted(f"word{number}")
    assert world.value("ppd_shadow_samples_total", route="pd", outcome="other") == 68
    assert world.value("ppd_shadow_dropped_total", reason="other") == 68
    assert world.value("ppd_guard_actions_total", action="other") == 70


def test_every_exposed_name_and_label_is_in_the_table(world):
    world.metrics.sampled("pd", "same")
    world.metrics.dropped("baseline_busy")
    world.metrics.judged("pd", 1.0, 0.0, 1, 1)
    world.metrics.noise(0.0)
    shown = {}
    for family in world.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        shown[name] = (family.type, family.documentation)
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels - {"le"} == next(set(i.labels) for i in INSTRUMENTS if i.name == name)
    assert shown == {i.name: (i.kind, i.help) for i in INSTRUMENTS if i.group == "shadow"}
