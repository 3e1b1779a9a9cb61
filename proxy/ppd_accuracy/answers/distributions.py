"""What can be said of a distribution of which only the likeliest tokens are known.

An engine tells the top k of a vocabulary of V tokens. What it does not tell has a known mass, 1 minus the sum of what
it tells, over V - k tokens; so entropies have bounds instead of a value. KL uses one bucket for the
rest. Natural logarithms throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

Logprobs = Mapping[str, float]
"""Token (as the engine spells it) to logprob, of one position: the k likeliest. A sampled token that an engine lists
although it is not one of them must be left out: that none of the rest is likelier than the last is made use of."""


VOCABULARY = 300_000
"""At least what any known model has (Gemma 3: 262,208), where nobody told the size. Upper bounds grow with its
logarithm."""


_IMPOSSIBLE = -9999.0
"""What vLLM tells for minus infinity."""
_ROUNDING = 1e-6
"""Of one minus a sum of probabilities whose logprobs are float32."""


class Bounds(NamedTuple):
    low: float
    high: float


def rest_mass(top: Logprobs) -> float:
    """The probability of everything that is not in the list."""
    return max(0.0, 1.0 - math.fsum(math.exp(each) for each in top.values() if math.isfinite(each)))


def entropy(top: Logprobs, vocabulary: int) -> Bounds:
    """Bounds of the entropy in nats. Low: the rest is one token (and none of the rest is likelier than the least
    listed one, where that raises it); high: the rest is spread evenly over the `vocabulary`."""
    listed = [math.exp(each) for each in top.values() if math.isfinite(each)]
    known = -math.fsum(share * math.log(share) for share in listed if share > 0)
    rest = rest_mass(top)
    if rest <= 1e-12:
        return Bounds(known, known)
    least = min(listed, default=1.0)
    # The rest in pieces as large as the least listed token allows: fewer pieces would not be "the rest".
    pieces = max(1.0, math.floor(rest / least)) if least > 0 else 1.0
    largest = min(rest, least)
    remainder = rest - pieces * largest if rest > largest else 0.0
    low = -(pieces * largest * math.log(largest)) if largest > 0 else 0.0
    low -= remainder * math.log(remainder) if remainder > 1e-12 else 0.0
    high = -rest * math.log(rest / max(1, vocabulary - len(listed)))
    return Bounds(known + min(low, high), known + high)


def bucket_entropy(top: Logprobs) -> float:
    """The entropy in nats with everything that is not listed as one token: a lower bound that assumes nothing, and
    differs between two engines by what they tell only."""
    shares = [*(math.exp(each) for each in top.values() if math.isfinite(each)), rest_mass(top)]
    return max(0.0, -math.fsum(share * math.log(share) for share in shares if share > 0))


def gap(one: Logprobs, other: Logprobs, vocabulary: int) -> Bounds:
    """Bounds of entropy(one) - entropy(other)."""
    first, second = entropy(one, vocabulary), entropy(other, vocabulary)
    return Bounds(first.low - second.high, first.high - second.low)


def divergence(one: Logprobs, other: Logprobs) -> float:
    """KL(one || other) over the tokens both list and one bucket for the rest of each: a lower bound of the true
    divergence (data processing inequality). Infinite where `other` lists as impossible (vLLM: -9999) what `one`
    lists; a rest that may be rounding counts as so much."""
    shared = [token for token in one if token in other]
    total = 0.0
    left, right = 1.0, 1.0
    for token in shared:
        mine = math.exp(one[token])
        left, right = left - mine, right - math.exp(other[token])
        if mine > 0:
            total += mine * (one[token] - other[token]) if other[token] > _IMPOSSIBLE else math.inf
    if left > _ROUNDING:
        total += left * math.log(left / max(right, _ROUNDING))
    return max(0.0, total)
