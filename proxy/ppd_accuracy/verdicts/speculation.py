"""Whether a decode engine's drafts are accepted less often than those of an unsplit engine: a canary for wrong KV.

A draft model that sees other KV than the target model, or a target with damaged KV, agrees less. It costs nothing: both
engines count it already. It needs drafts on both sides, and a prefill that only scores makes none.

The unit is the draft. Its tokens are accepted in order, so they are no independent trials; but the counts per position
are P(accepted >= i), and these give the distribution of accepted tokens per draft exactly, its variance included:
E[A] = sum p_i, E[A^2] = sum (2i - 1) p_i, i from 1. The drafts of one request are alike, which counters cannot tell:
`design_effect` estimates it from several windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import Literal, Protocol

import msgspec

MIN_DRAFTS = 50
"""On each side; below it the mean of these skewed counts is not yet nearly normal."""
LEAST_DROP = 0.05
"""Accepted tokens per draft. What is less does not matter, however sure it is: traffic differs by more."""
POWER = 0.8

SpecVerdict = Literal["dropped", "held", "unknown"]


class Counted(Protocol):
    """What an engine counted of its drafts; `per_position[i]`: drafts whose token `i` was accepted."""

    @property
    def drafts(self) -> float: ...
    @property
    def draft_tokens(self) -> float: ...
    @property
    def accepted_tokens(self) -> float: ...
    @property
    def per_position(self) -> tuple[float, ...]: ...


class SpecFigures(msgspec.Struct, frozen=True, kw_only=True):
    """As vLLM logs them. `acceptance_rate`: accepted tokens over draft tokens. `acceptance_length`: tokens per step,
    1 + accepted tokens over drafts. `per_position[i]`: share of drafts whose token `i` was accepted."""

    acceptance_rate: float
    acceptance_length: float
    per_position: tuple[float, ...]


class SpecDrop(msgspec.Struct, frozen=True, kw_only=True):
    """The difference in accepted tokens per draft, candidate minus baseline, over the positions that both draft.

    `dropped`: lower with confidence 1 - alpha, and by `least_drop` or more. `held`: with the same confidence not lower
    by `least_drop`. `unknown`: neither yet; then `drafts_needed` more on each side would decide in four of five cases
    (None: not to be told, because a side does not tell its positions). `low` and `high` are one-sided bounds, each with
    confidence 1 - alpha. None where there are no drafts. `p_value` is that of "not lower".
    """

    verdict: SpecVerdict
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    drafts_needed: int | None = None


def figures(counters: Counted) -> SpecFigures | None:
    """None without drafts."""
    if counters.drafts <= 0 or counters.draft_tokens <= 0:
        return None
    return SpecFigures(
        acceptance_rate=counters.accepted_tokens / counters.draft_tokens,
        acceptance_length=1 + counters.accepted_tokens / counters.drafts,
        per_position=tuple(accepted / counters.drafts for accepted in counters.per_position),
    )


def drop(
    candidate: Counted,
    baseline: Counted,
    alpha: float,
    *,
    least_drop: float = LEAST_DROP,
    design_effect: float = 1.0,
) -> SpecDrop:
    """One-sided Welch test with normal quantiles. `alpha` is for one look: who looks k times gives alpha / k.

    `design_effect` multiplies the variance on both sides. ValueError for an alpha, a least_drop or a design_effect
    that makes no sense.
    """
    _check(alpha, least_drop, design_effect)
    positions = min(len(candidate.per_position), len(baseline.per_position))
    if not positions:
        return SpecDrop(verdict="unknown")
    sides = (candidate, baseline)
    missing = max(0, *(math.ceil(MIN_DRAFTS - side.drafts) for side in sides))
    if any(side.drafts <= 0 for side in sides):
        return SpecDrop(verdict="unknown", drafts_needed=missing)
    (mean_c, var_c), (mean_b, var_b) = (_moments(side.drafts, side.per_position[:positions]) for side in sides)
    var_c, var_b = var_c * design_effect, var_b * design_effect
    difference = mean_c - mean_b
    error = math.sqrt(var_c / candidate.drafts + var_b / baseline.drafts)
    z = NormalDist().inv_cdf(1 - alpha)
    low, high = difference - z * error, difference + z * error
    verdict: SpecVerdict = "unknown"
    if not missing and high < 0 and difference <= -least_drop:
        verdict = "dropped"
    elif not missing and low > -least_drop:
        verdict = "held"
    needed = None
    if verdict == "unknown":
        wanted_error = max(least_drop, -difference) / (z + NormalDist().inv_cdf(POWER))
        more = _more_drafts((candidate.drafts, var_c), (baseline.drafts, var_b), wanted_error)
        needed = max(1, missing, more)
    p_value = NormalDist().cdf(difference / error)
    return SpecDrop(
        verdict=verdict, difference=difference, low=low, high=high, p_value=p_value, drafts_needed=needed
    )


def design_effect(windows: Sequence[Counted]) -> float:
    """By how much the mean varies more from window to window than independent drafts would; at least 1.

    `windows` are gains of one engine over equal times. What differs between them for other reasons, such as other
    traffic, counts too, so the estimate errs on the careful side. 1 with fewer than two windows that have drafts.
    """
    used = [window for window in windows if window.drafts > 0 and window.per_position]
    if len(used) < 2:
        return 1.0
    positions = min(len(window.per_position) for window in used)
    drafts = sum(window.drafts for window in used)
    accepted = tuple(sum(window.per_position[at] for window in used) for at in range(positions))
    mean, variance = _moments(drafts, accepted)
    means = (_moments(window.drafts, window.per_position[:positions])[0] for window in used)
    spread = sum(window.drafts * (each - mean) ** 2 for window, each in zip(used, means, strict=True))
    return max(1.0, spread / (len(used) - 1) / variance)


def _moments(drafts: float, per_position: tuple[float, ...]) -> tuple[float, float]:
    """Mean and variance of the accepted tokens per draft, over the positions given.

    The variance is that with one more draft in it, spread over all lengths alike: where every draft went the same way
    it would be 0, and nobody is that sure. A reading may fall between vLLM's increments, so the shares are put in
    order: none above that of the position before.
    """
    shares = (min(1.0, max(0.0, accepted / drafts)) for accepted in per_position)
    reached, positions = tuple(accumulate(shares, min)), len(per_position)
    weight = 1 / (drafts + 1)
    spread = tuple(
        (1 - weight) * share + weight * (positions + 1 - at) / (positions + 1) for at, share in enumerate(reached, 1)
    )
    first, second = sum(spread), sum((2 * at - 1) * share for at, share in enumerate(spread, 1))
    return sum(reached), second - first**2


def _more_drafts(candidate: tuple[float, float], baseline: tuple[float, float], wanted_error: float) -> int:
    """The least m with var_c / (n_c + m) + var_b / (n_b + m) <= wanted_error^2; arguments are (drafts, variance)."""
    (n_c, var_c), (n_b, var_b) = candidate, baseline
    target = wanted_error**2
    linear = target * (n_c + n_b) - var_c - var_b
    constant = target * n_c * n_b - var_c * n_b - var_b * n_c
    if constant >= 0:
        return 0
    return math.ceil((-linear + math.sqrt(linear**2 - 4 * target * constant)) / (2 * target))


def _check(alpha: float, least_drop: float, design_effect: float) -> None:
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}; it must be above 0 and below 0.5")
    if not least_drop > 0:
        raise ValueError(f"least_drop is {least_drop}; it must be above 0 accepted tokens per draft")
    if not design_effect >= 1:
        raise ValueError(f"design_effect is {design_effect}; it must be 1 or more")
