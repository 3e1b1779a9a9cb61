import pytest

from ppd_proxy.telemetry.labels import OTHER, Bounded, turn_label


@pytest.mark.parametrize(("turn", "label"), [(0, "1"), (1, "1"), (2, "2+"), (99, "2+")])
def test_turns_are_first_or_later(turn, label):
    assert turn_label(turn) == label


def test_values_that_were_let_through_stay_and_no_more_come():
    bounded = Bounded(2)
    assert [bounded(value) for value in ("a", "b", "c", "a", "c", "b")] == ["a", "b", OTHER, "a", OTHER, "b"]
