"""What the journal keeps of a check."""

import numpy as np
from tests.unit.proxy.shadow.test_sample import sample

from ppd_accuracy.answers.replays import ReplaySide, compare
from ppd_accuracy.answers.scores import BROKEN, Scores, summarize
from ppd_accuracy.verdicts.noise import Judgement
from ppd_proxy.shadow.check import Check, row_of

JUDGED = Judgement(outcome="diverged", category="far", score=9.0)
SCORES = Scores(
    candidate=np.array([-0.1]), baseline=np.array([-0.3]), margin=np.array([0.1]), rank=np.array([2], np.int64)
)


def test_a_row_has_both_engines_view_and_the_judgement():
    row = row_of(Check(sample(), "score", summarize(SCORES), SCORES, None, 12.0), JUDGED, None)
    assert (row.candidate_logprobs, row.baseline_logprobs, row.ranks, row.margins) == ([-0.1], [-0.3], [2], [0.1])
    assert (row.outcome, row.category, row.pair, row.timings) == ("diverged", "far", "p>d", {"baseline": 12.0})
    assert (row.threshold, row.noise_samples, row.replay, row.error) == (None, None, None, None)


def test_a_replays_row_says_how_the_answers_differ():
    difference = compare(ReplaySide([3], "stop"), ReplaySide([4], "length"))
    row = row_of(Check(sample(), "replay", summarize(SCORES), SCORES, difference, 1.0), JUDGED, None)
    assert (row.method, row.replay["first_difference"], row.replay["has_same_finish"]) == ("replay", 0, False)


def test_without_scores_a_row_says_why():
    row = row_of(Check(sample(), "score", BROKEN, None, None, 0.0), JUDGED, None)
    assert (row.baseline_logprobs, row.ranks, row.margins) == (None, None, None)
    assert "no number" in row.error
