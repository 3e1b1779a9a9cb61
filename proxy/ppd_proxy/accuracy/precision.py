"""Whether logprobs of equal tokens are further apart than a healthy engine is from itself.

Texts can be the same while the numbers behind them are not: a lost bit shows in the logprobs first. What a healthy
engine does is measured (`flips.Floor.deltas`), never assumed; the test is one of ranks and needs no model of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """`beyond` of `tokens` differences are larger than each of the `healthy` ones, of which `largest` is the largest.

    `chance` is how likely so many or more are, were the tokens healthy; None where nothing was measured or compared.
    `least` is the smallest chance that this many numbers can show: where it is large, the test cannot find anything.
    """

    tokens: int
    healthy: int
    beyond: int
    largest: float | None
    chance: float | None
    least: float | None


def excess(deltas: Sequence[float], healthy: Sequence[float]) -> Excess:
    """The test on |logprob differences| in nats, finite ones, at least 0.

    Healthy differences of exactly 0 are left out where there are others: an engine that repeats itself bit for bit says
    nothing of the noise between decoding and prefilling, and would only make rare what is not. Leaving them out can
    only raise the chance.
    """
    moved = [each for each in healthy if each > 0]
    known = moved or list(healthy)
    largest = max(known, default=None)
    beyond = sum(each > largest for each in deltas) if largest is not None else 0
    is_known = largest is not None and len(deltas) > 0
    return Excess(
        tokens=len(deltas),
        healthy=len(known),
        beyond=beyond,
        largest=largest,
        chance=chance_beyond(beyond, len(deltas), len(known)) if is_known else None,
        least=chance_beyond(len(deltas), len(deltas), len(known)) if is_known else None,
    )


def chance_beyond(beyond: int, tokens: int, healthy: int) -> float:
    """P(at least `beyond` of `tokens` numbers exceed all of `healthy` others), all of them exchangeable: the `beyond`
    largest of all are among the `tokens`, C(healthy + tokens - beyond, healthy) / C(healthy + tokens, healthy)."""
    total = healthy + tokens
    return math.exp(
        math.fsum(math.log(tokens - place) - math.log(total - place) for place in range(beyond)) if beyond else 0.0
    )
