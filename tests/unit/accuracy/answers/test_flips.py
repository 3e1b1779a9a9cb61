"""A first difference is a tie or a fault by what a healthy engine does to itself."""

import dataclasses
import math

import numpy as np
import pytest

from ppd_accuracy.answers.flips import (
    FALSE_ALARMS,
    ReplayNoise,
    TokenFlip,
    first_difference,
    flip_of,
    measure,
    replay_noise_of,
)

FLOOR = replay_noise_of([measure([0.01, -0.03, 0.02], [0.01, 0.02])])


def test_the_first_difference_is_a_token_that_differs_or_is_missing():
    assert first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([], [1]) == 0


@pytest.mark.parametrize(("gap", "judgement"), [(0.01, "tie"), (0.016, "unclassified"), (1.5, "real")])
def test_a_difference_is_real_where_a_healthy_token_hardly_moves_as_far(gap, judgement):
    flip = flip_of(0, [1], [2], [{"1": -0.5, "2": -0.5 - gap}], [{"2": -0.5, "1": -0.5 - gap}])
    assert flip.shift == pytest.approx(2 * gap)
    assert FLOOR.judge(flip) == judgement


def test_a_token_that_an_engine_does_not_list_gives_a_bound():
    flip = flip_of(0, [1], [9], [{"1": -0.1, "2": -3.0}], [{"9": -0.2, "1": -0.3}])
    assert (flip.baseline_margin, flip.target_margin, flip.is_bound) == (
        pytest.approx(2.9), pytest.approx(0.1), True,
    )  # fmt: skip
    assert FLOOR.judge(flip) == "real"


def test_a_bound_within_the_noise_is_not_called_a_tie():
    flip = flip_of(0, [1], [9], [{"1": -0.1, "2": -0.11}], [{"9": -0.2, "1": -0.201}])
    assert FLOOR.judge(flip) == "unclassified"


def test_nothing_is_judged_without_a_floor_or_by_one_that_has_nan():
    flip = flip_of(0, [1], [2], [{"1": 0.0, "2": -9.0}], [{"2": 0.0, "1": -9.0}])
    assert ReplayNoise().judge(flip) == "unclassified"
    broken = replay_noise_of([measure([0.01, math.nan], [0.01])])
    assert broken.broken == 1
    assert broken.judge(flip) == "unclassified"


def test_the_chance_is_that_of_a_rank():
    flip = flip_of(0, [1], [2], [{"1": -0.5, "2": -0.509}], [{"2": -0.5, "1": -0.509}])
    assert FLOOR.chance(flip) == pytest.approx((1 + 2) / (1 + 3))


def moved(shift, position=0):
    return TokenFlip(
        position=position, baseline_token=1, target_token=2, baseline_margin=shift, target_margin=0.0, is_bound=False
    )


@pytest.mark.parametrize("tail", ["normal", "laplace", "student"])
@pytest.mark.parametrize(("measured", "compared"), [(400, 64), (2000, 64), (2000, 20_000)])
def test_runs_of_healthy_tokens_hardly_ever_have_a_real_difference(tail, measured, compared):
    """The furthest of all compared tokens is a flip; heavy tails (Student, 3 degrees of freedom) included."""
    chance = np.random.default_rng(7)
    draw = {
        "normal": lambda count: chance.normal(size=count),
        "laplace": lambda count: chance.laplace(size=count),
        "student": lambda count: chance.standard_t(3, size=count),
    }[tail]
    runs, alarms = 300, 0
    for _ in range(runs):
        floor = replay_noise_of([measure(draw(measured), [])])
        alarms += floor.judge(moved(float(np.abs(draw(compared)).max()), compared - 1)) == "real"
    assert alarms <= 3 * FALSE_ALARMS * runs


def test_a_fault_of_several_times_the_noise_is_real_with_a_floor_of_a_few_hundred_tokens():
    floor = replay_noise_of([measure(np.random.default_rng(3).normal(scale=0.02, size=400), [])])
    assert floor.judge(moved(4 * floor.largest_shift, position=40)) == "real"


def test_more_comparisons_need_a_larger_floor():
    floor = replay_noise_of([measure(np.random.default_rng(3).laplace(size=1000), [])])
    shift = 1.6 * floor.largest_shift
    assert floor.judge(moved(shift)) == "real"
    assert dataclasses.replace(floor, family_tokens=10**6).judge(moved(shift)) == "unclassified"


def test_equal_replays_alone_say_nothing_of_prefilling():
    silent = replay_noise_of([measure([0.0] * 100, [0.0] * 100, is_scored=False)])
    assert silent.judge(moved(0.2)) == "unclassified"
    assert dataclasses.replace(silent, is_scored=True).judge(moved(0.2)) == "real"


def of_length(prompt_tokens, scale, **fields):
    draw = np.random.default_rng(prompt_tokens)
    return [measure(draw.normal(scale=scale, size=64), [], prompt_tokens=prompt_tokens, **fields) for _ in range(20)]


def test_a_difference_is_held_against_prompts_as_long_or_longer():
    floor = replay_noise_of([*of_length(100, 0.001), *of_length(900, 0.01), *of_length(3000, 0.1)])
    short, middle, long = (floor.for_prompt(tokens) for tokens in (200, 1000, 4096))
    assert (short.answers, middle.answers, long.answers) == (60, 40, 20)
    assert floor.longest_prompt == 3000
    only_short = replay_noise_of(of_length(100, 0.001))
    assert only_short.for_prompt(100).judge(moved(0.3)) == "real"
    assert long.judge(moved(0.2)) == "tie"


def test_shorter_prompts_say_nothing_of_a_longer_one():
    floor = replay_noise_of(of_length(100, 0.001))
    assert floor.judge(moved(3.0)) == "real"
    assert floor.for_prompt(5000).judge(moved(3.0)) == "unclassified"


def test_all_of_the_floor_judges_where_lengths_are_not_known():
    known, unknown = replay_noise_of(of_length(100, 0.01)), replay_noise_of([measure([0.01] * 200, [])])
    assert known.for_prompt(None) is known
    assert unknown.for_prompt(10**6) is unknown
    assert unknown.longest_prompt is None


def test_a_part_of_the_floor_knows_the_run_and_its_broken_numbers():
    floor = replay_noise_of([*of_length(100, 0.001), measure([math.nan], [], prompt_tokens=100), *of_length(900, 0.01)])
    part = floor.of_run(50).for_prompt(900)
    assert part.family_tokens == floor.of_run(50).family_tokens > 0
    assert part.judge(moved(9.0)) == "unclassified"
