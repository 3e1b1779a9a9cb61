"""Whether the newest run is worse than those before it."""

from ppd_acc.reports.trends import hits_of, judge

NAMES = [f"s{number}" for number in range(40)]


def run(bad):
    return {name: number < bad for number, name in enumerate(NAMES)}


def test_what_was_not_compared_is_no_hit():
    assert hits_of({"a": "real", "b": "equal", "c": "error", "d": "empty"}, ("real",)) == {"a": True, "b": False}


def test_one_run_is_no_trend():
    assert judge([], run(3), 0.05, 1).outcome == "inconclusive"


def test_a_run_that_is_much_worse_than_the_last_fails():
    assert judge([run(0)], run(20), 0.05, 1).outcome == "fail"


def test_runs_without_a_sample_in_common_are_compared_by_their_rates():
    other = {f"t{number}": number < 30 for number in range(40)}
    assert judge([run(0)], other, 0.05, 1).outcome == "fail"


def test_several_runs_are_judged_sample_by_sample():
    worse = judge([run(0)] * 4, run(20), 0.05, 1)
    assert worse.outcome == "fail"
    assert "significantly worse" in worse.reason
    better = judge([run(20)] * 4, run(0), 0.05, 1)
    assert (better.outcome, "significantly better" in better.reason) == ("pass", True)


def test_no_change_at_all_passes_and_a_small_one_decides_nothing():
    assert judge([run(2)] * 3, run(2), 0.05, 1).outcome == "pass"
    assert judge([run(2)] * 3, run(3), 0.05, 1).outcome == "inconclusive"
