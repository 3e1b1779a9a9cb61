"""What gates' outcomes come to."""

import pytest

from ppd_acc.compare.decisions import decision_data, worst
from ppd_acc.outcome import Exit
from ppd_accuracy.statistics.gates import Decision
from ppd_accuracy.statistics.intervals import Interval


@pytest.mark.parametrize(
    ("outcomes", "exit_code"),
    [
        (["pass", "inconclusive", "fail"], Exit.DIFFERENT),
        (["pass", "inconclusive"], Exit.INCONCLUSIVE),
        (["pass"], Exit.PASS),
        ([], Exit.PASS),
    ],
)
def test_the_worst_outcome_decides(outcomes, exit_code):
    assert worst(outcomes) == exit_code


def test_a_decision_is_told_with_its_interval_where_there_is_one():
    decided = Decision(outcome="fail", reason="worse", p=0.01, interval=Interval(low=0.1, high=0.3), more_samples=5)
    assert decision_data(decided) == {
        "outcome": "fail", "reason": "worse", "p": 0.01, "interval": {"low": 0.1, "high": 0.3}, "more_samples": 5,
    }  # fmt: skip
    assert decision_data(Decision(outcome="pass", reason="same"))["interval"] is None
