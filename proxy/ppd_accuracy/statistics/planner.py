"""How many samples it takes to tell two rates apart, or a mean from zero.

Exact where that is cheap: powers are sums over binomial distributions, not normal approximations. Used by `ppd-acc`
alone, so scipy is imported at the top. Rates are shares in [0, 1]; anything else, NaN too, raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray

POWER = 0.8
"""The usual chance of finding what is there."""
MOST = 1_000_000
"""More samples than anyone takes: a search ends there."""


def paired_samples(one_only: float, other_only: float, alpha: float, power: float = POWER) -> int | None:
    """Pairs after which the exact McNemar test finds (in the right direction) that one run is hit more often.

    `one_only` and `other_only` are the shares of pairs hit in that run alone. None where they are equal or it takes
    more than MOST.
    """
    _require(one_only=one_only, other_only=other_only, alpha=alpha, power=power)
    if one_only + other_only > 1 + 1e-12:
        raise ValueError(f"one_only {one_only} and other_only {other_only} are more than all pairs")
    if one_only == other_only:
        return None
    return _smallest(lambda count: paired_power(count, one_only, other_only, alpha) >= power)


def paired_power(samples: int, one_only: float, other_only: float, alpha: float) -> float:
    """Chance that the exact McNemar test of `samples` pairs rejects in favour of the larger share."""
    discordant = min(1.0, one_only + other_only)
    counts = _likely(samples, discordant)
    chances = scipy.stats.binom.pmf(counts, samples, discordant)
    # The larger side must have at least `needed` of the discordant pairs: P(a coin shows that many) <= alpha / 2.
    needed = scipy.stats.binom.isf(alpha / 2, counts, 0.5) + 1
    found = scipy.stats.binom.sf(needed - 1, counts, max(one_only, other_only) / discordant)
    return float(np.sum(chances * found))


def unpaired_samples(rate: float, other_rate: float, alpha: float, power: float = POWER) -> int | None:
    """Samples in each of two runs after which Fisher's test tells their rates apart.

    The formula with continuity correction (Fleiss, Tytun and Ury 1980), which comes close to Fisher's exact power.
    None where the rates are equal or it takes more than MOST.
    """
    _require(rate=rate, other_rate=other_rate, alpha=alpha, power=power)
    apart = abs(rate - other_rate)
    if not apart:
        return None
    middle = (rate + other_rate) / 2
    null = _normal(alpha) * math.sqrt(2 * middle * (1 - middle))
    there = float(scipy.stats.norm.ppf(power)) * math.sqrt(rate * (1 - rate) + other_rate * (1 - other_rate))
    plain = max(0.0, null + there) ** 2 / apart**2
    count = plain / 4 * (1 + math.sqrt(1 + 4 / (plain * apart))) ** 2 if plain else 1.0
    return math.ceil(count) if count <= MOST else None


def mean_samples(effect: float, alpha: float, power: float = POWER) -> int | None:
    """Paired differences after which Student's test finds a mean of `effect` standard deviations, in the right
    direction. None where the effect is 0 or it takes more than MOST."""
    _require(alpha=alpha, power=power)
    if math.isnan(effect):
        raise ValueError("effect is nan, must be a number of standard deviations")
    size = abs(effect)

    def is_enough(count: int) -> bool:
        if count < 2:
            return False
        bound = scipy.stats.t.isf(alpha / 2, count - 1)
        return float(scipy.stats.nct.sf(bound, count - 1, size * math.sqrt(count))) >= power

    # An effect below this takes more than MOST by the normal approximation.
    return _smallest(is_enough) if size > 1.5 / math.sqrt(MOST) else None


def _smallest(is_enough: Callable[[int], bool]) -> int | None:
    """The smallest count from which on it is enough, but for the teeth of the binomial distribution."""
    high = 1
    while not is_enough(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _likely(samples: int, share: float) -> NDArray[np.int64]:
    """The counts that hold all but a billionth of the binomial distribution."""
    low, high = scipy.stats.binom.ppf(5e-10, samples, share), scipy.stats.binom.ppf(1 - 5e-10, samples, share)
    return np.arange(max(0, int(low)), min(samples, int(high)) + 1)


def _normal(alpha: float) -> float:
    return float(scipy.stats.norm.isf(alpha / 2))


def _require(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, must be in [0, 1]")
