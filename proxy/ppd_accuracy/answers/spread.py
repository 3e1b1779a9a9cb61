"""Two engines' likeliest tokens over one answer, position by position in the same context: entropy and divergence.

What the logprobs of the chosen tokens cannot show: the text is the same, and how sure the engine was of it is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from ppd_accuracy.answers.distributions import VOCABULARY, bucket_entropy, divergence, gap

Top = Mapping[str, float]


class Spread(NamedTuple):
    """Candidate against baseline, in nats, over the `positions` at which both told their likeliest tokens.

    `entropy_low` and `entropy_high` bound the mean change of the entropy. `entropy_change` is between them: the change
    of the entropy with all that is not listed as one token, moved into the bounds where it is outside. `divergence` is
    the mean of KL(candidate || baseline) over the tokens both list and one bucket for the rest, `largest_divergence`
    the largest: lower bounds of the true ones.
    """

    positions: int
    entropy_change: float
    entropy_low: float
    entropy_high: float
    divergence: float
    largest_divergence: float


def spread_of(candidate: Sequence[Top], baseline: Sequence[Top], vocabulary: int = VOCABULARY) -> Spread | None:
    """None where there is no position at which both told something. Both name tokens alike."""
    known = [(one, other) for one, other in zip(candidate, baseline, strict=True) if one and other]
    if not known:
        return None
    gaps = [gap(one, other, vocabulary) for one, other in known]
    changes = [bucket_entropy(one) - bucket_entropy(other) for one, other in known]
    divergences = [divergence(one, other) for one, other in known]
    return Spread(
        positions=len(known),
        entropy_change=fmean(min(max(change, low), high) for change, (low, high) in zip(changes, gaps, strict=True)),
        entropy_low=fmean(each.low for each in gaps),
        entropy_high=fmean(each.high for each in gaps),
        divergence=fmean(divergences),
        largest_divergence=max(divergences),
    )


def likeliest(listed: Top, count: int) -> dict[str, float]:
    """The `count` likeliest tokens of a list of at least one more: an engine lists the chosen token in any case, so
    that the last of a list need not be the next likeliest. Empty where the list is shorter, or a number is none."""
    if len(listed) <= count or not all(map(math.isfinite, listed.values())):
        return {}
    return dict(sorted(listed.items(), key=lambda each: -each[1])[:count])
