"""Two engines' likeliest tokens over one answer, position by position in the same context: entropy and divergence.

What the logprobs of the chosen tokens cannot show: the text is the same, and how sure the engine was of it is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from ppd_proxy.accuracy.distributions import VOCABULARY, bucket_entropy, divergence, gap

Top = Mapping[str, float]


class Spread(NamedTuple):
    """Candidate against baseline, in nats, over the `positions` at which both told their likeliest tokens.

    `entropy_change` is the mean change of the entropy with all that is not listed as one token; `entropy_low` and
    `entropy_high` bound the mean change of the true one. `divergence` is the mean of KL(candidate || baseline) over
    the tokens both list and one bucket for the rest, `largest_divergence` the largest: lower bounds of the true ones.
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
    divergences = [divergence(one, other) for one, other in known]
    return Spread(
        positions=len(known),
        entropy_change=fmean(bucket_entropy(one) - bucket_entropy(other) for one, other in known),
        entropy_low=fmean(each.low for each in gaps),
        entropy_high=fmean(each.high for each in gaps),
        divergence=fmean(divergences),
        largest_divergence=max(divergences),
    )


def likeliest(listed: Top, count: int, chosen: float) -> dict[str, float]:
    """The `count` likeliest tokens of a list of as many and the chosen one. An engine lists the chosen token also where
    it is none of them; `chosen` is its logprob. Empty where a number is none."""
    if not all(map(math.isfinite, listed.values())):
        return {}
    falling = sorted(listed.items(), key=lambda each: -each[1])
    if falling and len(falling) <= count and falling[-1][1] == chosen:
        falling.pop()  # the last of the list, or beyond it: none of the rest is sure to be less likely
    return dict(falling[:count])
