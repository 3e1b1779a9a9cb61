"""What a finished check means."""

import math

import pytest
from tests.unit.accuracy.healthy import Source
from tests.unit.proxy.shadow.test_sample import fields, sample

from ppd_accuracy.verdicts.noise import BaselineNoise, reference_of
from ppd_accuracy.verdicts.verdicts import Tolerances, Verdicts
from ppd_proxy.shadow.check import Check
from ppd_proxy.shadow.judge import Judge, method_of, noise_key, says_nothing

KEY = noise_key(sample())
HEALTHY = Source(1)


def judge(healthy=60):
    """With a noise floor of so many samples."""
    verdicts = Verdicts(BaselineNoise(least=60, capacity=1000), Tolerances(false_alarms=0.01, tolerance=0.05))
    for _ in range(healthy):
        statistics = HEALTHY.sample()
        due = verdicts.noise.due(KEY, statistics)
        verdicts.add_noise(KEY, statistics, reference_of(due) if due is not None else None)
    return Judge(verdicts)


def check(scale=1.0, **changes):
    return Check(sample(**changes), "score", HEALTHY.sample(scale), None, None, 1.0)


def test_a_healthy_answer_is_within_the_noise_and_a_damaged_one_is_not():
    judging = judge()
    assert judging.judge(check(), KEY, (), 0.0).judgement.category == "within"
    assert judging.judge(check(300.0), KEY, (), 0.0).judgement.category == "far"


def test_without_a_noise_floor_there_is_no_judgement():
    judging = judge(59)
    assert not judging.has_floor(KEY)
    assert judging.judge(check(), KEY, (), 0.0) is None


def test_what_waited_comes_out_once_and_in_order():
    judging = judge(0)
    checks = [check(id=str(number)) for number in range(3)]
    assert [judging.park(each, KEY) for each in checks] == [False] * 3
    assert judging.parked == 3
    assert list(judging.released(KEY)) == checks
    assert judging.parked == 0


def test_beyond_the_bound_the_oldest_goes():
    judging = judge(0)
    assert [judging.park(check(id=str(number)), KEY) for number in range(501)] == [False] * 500 + [True]
    assert next(judging.released(KEY)).sample.id == "1"


def test_the_journals_row_has_the_judgement_and_the_floor_it_was_made_by():
    judging = judge()
    row = judging.judge(check(300.0, id="a"), KEY, (), 0.0).row
    assert (row.sample_id, row.category, row.noise_samples) == ("a", "far", 60)


def test_a_difference_that_is_no_number_is_shown_as_infinite():
    judging = judge()
    broken = check()._replace(statistics=HEALTHY.sample(math.nan))
    assert judging.judge(broken, KEY, (), 0.0).figures["max_delta"] == math.inf


@pytest.mark.parametrize(
    ("wanted", "changes", "expected"),
    [
        ("score", {}, "score"),
        ("replay", {"fields": fields(temperature=0)}, "replay"),
        ("score", {"is_scorable": False, "fields": fields(temperature=0)}, "replay"),
        ("score", {"is_scorable": False, "fields": fields(temperature=0.7)}, None),
    ],
)
def test_what_cannot_be_scored_is_replayed_if_it_repeats(wanted, changes, expected):
    assert method_of(sample(**changes), wanted) == expected


def test_a_baseline_that_is_gone_says_nothing_of_the_sample():
    assert says_nothing("baseline_down")
    assert not says_nothing("bad_answer")
