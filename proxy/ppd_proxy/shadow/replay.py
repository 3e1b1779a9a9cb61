"""Checking by replay: the same request on the baseline, for what cannot be scored (images, several parsers).

Greedy or seeded requests only. The two answers are compared up to and including their first difference; there the
baseline tells what it thinks of the candidate's token, if that is among its likeliest.
"""

from __future__ import annotations

import math

import numpy as np

from ppd_accuracy.answers.replays import ReplayDifference, ReplaySide, compare
from ppd_accuracy.answers.scores import Scores
from ppd_wire.answers.candidate import Candidate
from ppd_wire.answers.tokens import BY_ID


def difference_of(candidate: Candidate, other: Candidate) -> ReplayDifference:
    return compare(
        ReplaySide(candidate.token_ids, candidate.finish_reason, candidate.tool_calls),
        ReplaySide(other.token_ids, other.finish_reason, other.tool_calls),
    )


def scores_of_replay(candidate: Candidate, other: Candidate, difference: ReplayDifference) -> Scores | None:
    """Both engines' logprobs of the tokens they share, and of the candidate's first own one. None without any."""
    count = difference.prefix_tokens
    own, theirs = candidate.logprobs[:count], other.logprobs[:count]
    margins, ranks = [0.0] * count, [1] * count
    at = difference.first_difference
    if at is not None and at < len(candidate.token_ids) and at < len(other.token_ids):
        top = other.tops[at] if at < len(other.tops) else {}
        least = min(top.values(), default=-math.inf)
        logprob = top.get(f"{BY_ID}{candidate.token_ids[at]}", least)  # not among the likeliest: at most that
        own, theirs = [*own, candidate.logprobs[at]], [*theirs, logprob]
        margins, ranks = [*margins, other.logprobs[at] - logprob], [*ranks, 2]
    if not own:
        return None
    return Scores(
        candidate=np.array(own), baseline=np.array(theirs), margin=np.array(margins), rank=np.array(ranks, np.int64)
    )
