"""Thresholds come from healthy samples and from nowhere else."""

import math
from collections import Counter

import pytest
from tests.unit.accuracy.healthy import KEY, Source, scores

from ppd_accuracy.answers.scores import summarize
from ppd_accuracy.verdicts.noise import CATEGORIES, BaselineNoise, Tail, key_of, reference_of


@pytest.mark.parametrize(("tokens", "bucket"), [(1, 256), (256, 256), (257, 512), (5000, 8192), (10**6, 1048576)])
def test_prompt_lengths_fall_into_buckets(tokens: int, bucket: int) -> None:
    assert key_of("m", tokens, "sampled").bucket_tokens == bucket


def test_greedy_and_sampled_answers_have_floors_of_their_own() -> None:
    assert key_of("m", 10, "greedy") != key_of("m", 10, "sampled")


def test_a_healthy_sample_is_far_about_as_often_as_its_rank_says() -> None:
    source, far, near, count = Source(1), 0, 0, 0
    for _ in range(20):
        reference = reference_of([source.sample() for _ in range(200)])
        for _ in range(200):
            category = reference.judge(source.sample(), is_greedy=True).category
            far, near, count = far + (category == "far"), near + (category == "near"), count + 1
    expected = reference.counts[-1] / sum(reference.counts)
    assert far / count < 2 * expected
    assert near / count < 0.03


def test_categories_are_as_frequent_as_the_counts_say() -> None:
    source = Source(5)
    reference = reference_of([source.sample() for _ in range(4000)])
    found = Counter(reference.judge(source.sample(), is_greedy=True).category for _ in range(4000))
    total = sum(reference.counts)
    assert total == 4001
    assert reference.counts[2:] == (3, 1)
    for category, count in zip(CATEGORIES, reference.counts, strict=True):
        assert abs(found[category] - count / total * 4000) < 5 + 5 * math.sqrt(count)


def test_one_extreme_healthy_sample_does_not_hide_what_is_rare() -> None:
    """A fault of ten times the noise is far without it, and beyond all but it."""
    source = Source(6)
    healthy = [source.sample() for _ in range(3000)]
    with_extreme = reference_of([*healthy, source.sample(1000)])
    found = Counter(with_extreme.judge(source.sample(10), is_greedy=True).category for _ in range(50))
    assert found["rare"] == 50


def test_too_few_healthy_samples_know_nothing_rare() -> None:
    source = Source(7)
    reference = reference_of([source.sample() for _ in range(500)])
    assert reference.counts[2] == 0
    assert all(reference.judge(source.sample(4), is_greedy=True).category != "rare" for _ in range(100))


def test_a_damaged_sample_is_far() -> None:
    source = Source(2)
    reference = reference_of([source.sample() for _ in range(200)])
    assert all(reference.judge(source.sample(30), is_greedy=True).category == "far" for _ in range(50))


def test_outcomes_of_greedy_answers() -> None:
    healthy = [summarize(scores([-1.0] * 8, [-1.0 - 0.01 * n / 200] * 8, [0.02] + [0.0] * 7)) for n in range(200)]
    reference = reference_of(healthy)

    def outcome(candidate: list[float], baseline: list[float], margin: list[float]) -> str:
        return reference.judge(summarize(scores(candidate, baseline, margin)), is_greedy=True).outcome

    assert outcome([-1.0] * 2, [-1.0] * 2, [0.0, 0.0]) == "exact"
    assert outcome([-1.0] * 2, [-1.0] * 2, [0.0, 0.01]) == "tie"
    assert outcome([-1.0] * 2, [-1.5] * 2, [0.0, 0.0]) == "drift"
    assert outcome([-1.0] * 2, [-1.0] * 2, [0.0, 0.5]) == "diverged"
    assert outcome([-1.0, math.nan], [-1.0] * 2, [0.0, 0.0]) == "diverged"


def test_no_choice_of_a_sampled_answer_is_judged() -> None:
    reference = reference_of([summarize(scores([-1.0], [-1.0 - 0.01 * n / 200])) for n in range(200)])
    unlikely = summarize(scores([-6.0], [-6.001], [5.0]))
    assert reference.judge(unlikely, is_greedy=False).outcome == "exact"
    assert reference.judge(summarize(scores([-6.0], [-6.5], [5.0])), is_greedy=False).outcome == "diverged"


def test_exact_engines_have_a_floor_of_zero_that_nothing_else_passes() -> None:
    reference = reference_of([summarize(scores([-1.0], [-1.0])) for _ in range(100)])
    assert reference.judge(summarize(scores([-1.0], [-1.0])), is_greedy=True).category == "within"
    assert reference.judge(summarize(scores([-1.0], [-1.0001])), is_greedy=True).category == "far"


def test_there_is_no_reference_before_enough_samples_and_it_is_renewed_when_they_doubled() -> None:
    noise, source = BaselineNoise(least=50, capacity=1000), Source(3)
    made = [number for number in range(1, 201) if noise.add(KEY, source.sample())]
    assert made == [50, 100, 200]
    assert noise.reference(KEY).samples == 200
    assert noise.missing(KEY) == 0


def test_what_the_next_reference_is_made_of_is_told_before_it_is_made() -> None:
    noise, source = BaselineNoise(least=3, capacity=5), Source(3)
    samples = [source.sample() for _ in range(9)]
    for number, sample in enumerate(samples, 1):
        due = noise.due(KEY, sample)
        is_new = noise.add(KEY, sample)
        assert due == (noise.samples(KEY) if is_new else None)
        assert is_new == (number in (3, 5))


def test_a_reference_that_was_made_elsewhere_is_taken() -> None:
    noise, source = BaselineNoise(least=2, capacity=5), Source(3)
    first, second = source.sample(), source.sample()
    noise.add(KEY, first)
    made = reference_of(noise.due(KEY, second) or ())
    assert noise.add(KEY, second, made)
    assert noise.reference(KEY) is made


def test_a_reference_of_samples_that_were_forgotten_meanwhile_is_not_taken() -> None:
    noise, source = BaselineNoise(least=2, capacity=100), Source(3)
    for _ in range(3):
        noise.add(KEY, source.sample())
    last = source.sample()
    made = reference_of(noise.due(KEY, last) or ())
    noise.restart(KEY, keep=1)
    assert noise.add(KEY, last, made)
    reference = noise.reference(KEY)
    assert reference is not None
    assert (made.samples, reference.samples) == (4, 2)


def test_a_value_is_shown_that_surprises_more_than_the_threshold() -> None:
    tail = Tail([0.0, 0.1, 0.1, 0.2, 0.3, 0.5], tokens=100)
    known = [0.1, 0.2, 0.3, 0.5]
    for at, value in enumerate(known[:-1]):
        assert tail.value_at(tail.surprise(value, 4), 4) == known[at + 1]
    assert tail.value_at(0.0, 4) == 0.1
    assert tail.value_at(99.0, 4) == 0.5


def test_a_restart_keeps_the_latest_and_is_unknown_until_there_are_enough() -> None:
    noise, source = BaselineNoise(least=50, capacity=1000), Source(4)
    for _ in range(100):
        noise.add(KEY, source.sample())
    noise.restart(KEY, keep=10)
    assert noise.reference(KEY) is None
    assert noise.missing(KEY) == 40
    noise.restart(KEY, keep=0)
    assert noise.count(KEY) == 0


def test_senseless_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="least is 10 and capacity 5"):
        BaselineNoise(least=10, capacity=5)
    with pytest.raises(ValueError, match="at least one"):
        reference_of([])
