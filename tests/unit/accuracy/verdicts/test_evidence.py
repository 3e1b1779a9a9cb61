"""A likelihood ratio that a healthy engine seldom makes large, and a faulty one soon."""

import numpy as np
import pytest
from tests.unit.accuracy.healthy import KEY, Source

from ppd_accuracy.verdicts.evidence import SPACING, Detector, Evidence, samples_to
from ppd_accuracy.verdicts.noise import CATEGORIES, BaselineNoise


def test_evidence_of_a_part_is_stronger_than_of_the_whole() -> None:
    counts, whole, parts = (2967, 30, 3, 1), Detector(), Evidence({"pd": 0.5, "direct": 0.4})
    for number in range(1000):
        is_pd = number % 5 == 0
        category = "far" if number % 100 == 0 else "within"
        whole.add(KEY, counts, category, day=0)
        parts.add(KEY, counts, category, day=0, part="pd" if is_pd else "direct")
    assert parts.part == "pd"
    assert parts.value > 100 * whole.value


def test_near_answers_alone_are_drift_and_no_evidence_of_faults() -> None:
    """As healthy conversations of 40 turns on a real vLLM: 11 % near, none rare or far."""
    counts, evidence, random = (3240, 66, 3, 1), Evidence({"route:direct": 0.9}), np.random.default_rng(4)
    for _ in range(2000):
        category = "near" if random.random() < 0.11 else "within"
        evidence.add(KEY, counts, category, day=0, part="route:direct")
    assert evidence.value < 1
    assert evidence.drift > 1e6


def test_a_detector_rarely_passes_its_bound_on_healthy_samples() -> None:
    """Ville's inequality at 1/20 with weights that add up to 1; far more than 1 in 20 would be a wrong martingale."""
    source, passed, runs = Source(6), 0, 40
    for _ in range(runs):
        noise = BaselineNoise(least=100, capacity=100)
        for _ in range(100):
            noise.add(KEY, source.sample())
        reference, detector = noise.reference(KEY), Detector()
        values = [
            detector.add(KEY, reference.counts, reference.judge(source.sample(), is_greedy=True).category, day=0)
            for _ in range(500)
        ]
        passed += max(values) >= 20
    assert passed <= 5


def test_a_detector_sees_what_begins_late() -> None:
    detector, counts = Detector(), (2946, 50, 3, 2)
    for _ in range(1500):
        detector.add(KEY, counts, CATEGORIES[0], day=0)
    before = detector.value
    for _ in range(20):
        detector.add(KEY, counts, CATEGORIES[-1], day=0)
    assert detector.value > 1e6 * max(before, 1e-9)
    assert detector.span <= 20 + 2 * SPACING


@pytest.mark.parametrize("count", [1, 25, 26])
def test_a_detector_counts_what_it_was_given(count: int) -> None:
    detector = Detector()
    for _ in range(count):
        detector.add(KEY, (99, 1, 0, 1), "within", day=0)
    assert detector.count == count


def test_what_is_forgotten_is_no_evidence_any_more() -> None:
    evidence = Evidence({"pd": 0.5})
    for _ in range(30):
        evidence.add(KEY, (99, 1, 0, 1), "far", day=0, part="pd")
    assert (evidence.part, evidence.value > 1) == ("pd", True)
    evidence.restart()
    assert (evidence.part, evidence.value, evidence.drift, evidence.span) == (None, 0.0, 0.0, 0)


def test_a_part_that_is_not_known_counts_with_the_rest() -> None:
    known, rest = Evidence({"pd": 0.5}), Evidence({"pd": 0.5})
    for _ in range(30):
        known.add(KEY, (99, 1, 0, 1), "far", day=0, part="elsewhere")
        rest.add(KEY, (99, 1, 0, 1), "far", day=0)
    assert known.value == rest.value > 0


@pytest.mark.parametrize(
    ("value", "beyond", "samples"), [(1.0, 0, None), (0.0, 10, None), (200.0, 10, 0), (99.0, 10, 1), (1.0, 10, 20)]
)
def test_the_samples_up_to_the_bound_are_estimated(
    value: float, beyond: int, samples: int | None
) -> None:
    counts = {"within": 100 - beyond, "near": 0, "rare": 0, "far": beyond}
    assert samples_to(value, 100.0, counts) == samples
