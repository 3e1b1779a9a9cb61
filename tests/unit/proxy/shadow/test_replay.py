"""What a replay on the baseline is compared by."""

import pytest
from tests.unit.proxy.shadow.test_baseline import candidate

from ppd_proxy.shadow.replay import difference_of, scores_of_replay


def test_a_replay_is_compared_up_to_its_first_difference() -> None:
    ours = candidate([1, 2, 3, 4], [-0.1, -0.2, -0.3, -0.4])
    other = candidate([1, 2, 9, 4], [-0.1, -0.25, -0.2, -0.1], [{}, {}, {"token_id:9": -0.2, "token_id:3": -0.9}, {}])
    difference = difference_of(ours, other)
    scores = scores_of_replay(ours, other, difference)
    assert scores.baseline.tolist() == [-0.1, -0.25, -0.9]
    assert scores.margin.tolist() == pytest.approx([0.0, 0.0, 0.7])
    assert scores.rank.tolist() == [1, 1, 2]


def test_a_token_that_the_baseline_does_not_list_is_at_most_as_likely_as_the_least_listed() -> None:
    ours, other = candidate([3], [-0.3]), candidate([9], [-0.2], [{"token_id:9": -0.2, "token_id:5": -4.0}])
    scores = scores_of_replay(ours, other, difference_of(ours, other))
    assert scores.baseline[0] == -4.0
    assert scores.margin[0] == pytest.approx(3.8)


def test_equal_replays_have_no_margin() -> None:
    ours = candidate([1, 2], [-0.1, -0.2])
    scores = scores_of_replay(ours, ours, difference_of(ours, ours))
    assert scores.margin.max() == 0
