"""How many samples it takes: to hold a rate against a limit, or to tell two rates apart.

Exact where that is cheap: powers are sums over binomial distributions, not normal approximations. Used by `ppd-acc`
alone, so scipy is imported at the top. Rates are shares in [0, 1]; anything else, NaN too, raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

POWER = 0.8
"""The usual chance of finding what is there."""
MOST = 1_000_000
"""More samples than anyone takes: a search ends there."""


def rate_samples(rate: float, limit: float, alpha: float, power: float = POWER) -> int | None:
    """Samples after which Wilson's interval (confidence 1 - alpha) of a true `rate` clears the `limit` with the chance
    `power`. None where the two are equal or it takes more than MOST."""
    _require(rate=rate, limit=limit, alpha=alpha, power=power)
    return None if rate == limit else _smallest(lambda count: rate_power(count, rate, limit, alpha) >= power)


def rate_power(samples: int, rate: float, limit: float, alpha: float) -> float:
    """Chance that Wilson's interval of `samples` at a true `rate` lies on the rate's side of the `limit`."""
    spread = _normal(alpha) * math.sqrt(limit * (1 - limit) / samples)
    # Wilson's interval excludes what the score test rejects.
    if rate > limit:
        return float(stats.binom.sf(math.floor(samples * (limit + spread) + 1e-9), samples, rate))
    return float(stats.binom.cdf(math.floor(samples * (limit - spread) + 1e-9), samples, rate))


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
    chances = stats.binom.pmf(counts, samples, discordant)
    # The larger side must have at least `needed` of the discordant pairs: P(a coin shows that many) <= alpha / 2.
    needed = stats.binom.isf(alpha / 2, counts, 0.5) + 1
    found = stats.binom.sf(needed - 1, counts, max(one_only, other_only) / discordant)
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
    there = float(stats.norm.ppf(power)) * math.sqrt(rate * (1 - rate) + other_rate * (1 - other_rate))
    plain = max(0.0, null + there) ** 2 / apart**2
    count = plain / 4 * (1 + math.sqrt(1 + 4 / (plain * apart))) ** 2 if plain else 1.0
    return math.ceil(count) if count <= MOST else None


def detectable_rate(samples: int, rate: float, alpha: float, power: float = POWER) -> float | None:
    """The smallest rate above `rate` that two runs of `samples` each tell from it; None: not even 1."""
    return _least_rate(rate, 1.0, lambda other: _within(unpaired_samples(rate, other, alpha, power), samples))


def detectable_harm(samples: int, other_only: float, alpha: float, power: float = POWER) -> float | None:
    """The smallest share of pairs hit in one run alone that `samples` pairs tell from the share `other_only` of pairs
    hit in the other alone; None: there is none."""
    _require(other_only=other_only, alpha=alpha, power=power)
    return _least_rate(other_only, 1.0 - other_only, lambda one: paired_power(samples, one, other_only, alpha) >= power)


def _within(needed: int | None, samples: int) -> bool:
    return needed is not None and needed <= samples


def _least_rate(low: float, high: float, is_found: Callable[[float], bool]) -> float | None:
    """Bisection to a millionth; `is_found` is monotone but for the teeth of the binomial distribution."""
    if high <= low or not is_found(high):
        return None
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high


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
    low, high = stats.binom.ppf(5e-10, samples, share), stats.binom.ppf(1 - 5e-10, samples, share)
    return np.arange(max(0, int(low)), min(samples, int(high)) + 1)


def _normal(alpha: float) -> float:
    return float(stats.norm.isf(alpha / 2))


def _require(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, must be in [0, 1]")
