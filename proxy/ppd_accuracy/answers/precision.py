"""Whether logprobs of equal tokens are further apart than a healthy engine is from itself.

Texts can be the same while the numbers behind them are not: a lost bit shows in the logprobs first. What a healthy
engine does is measured (`flips.ReplayNoise.measured`), never assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

_SUSPICIOUS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """`beyond` of `tokens` differences are larger than each of the `healthy` ones, of which `largest` is the largest.

    `chance` is how likely so many or more are, were the answers healthy; None where nothing was measured or compared.
    `least` is the smallest chance that this many numbers can show: where it is large, the test cannot find anything.
    `chance_of_tokens` is the chance were all tokens alike, whatever answer they are of.
    """

    tokens: int
    healthy: int
    beyond: int
    largest: float | None
    chance: float | None
    least: float | None
    chance_of_tokens: float | None

    def is_suspicious(self, alpha: float) -> bool:
        """Whether tokens are beyond the noise, and only how much healthy answers differ from each other could explain
        it: more of these would tell."""
        tokens = self.chance_of_tokens
        return tokens is not None and tokens < alpha and self.chance is not None and alpha <= self.chance < _SUSPICIOUS


def excess(answers: Sequence[Sequence[float]], healthy: Sequence[Sequence[float]]) -> Excess:
    """The test on |logprob differences| in nats, finite ones, at least 0, by answer.

    Two tests have to agree. One is of ranks over all tokens. It takes them as exchangeable, which those of one answer
    are not where answers differ in how noisy they are. The other is Student's, one-sided, over answers: the logarithm
    of an answer's root mean square against that of healthy ones (of as many tokens: `_typical_size`). Healthy answers
    whose noise varied by a factor of 1.3 to 2.7 failed the first in 2 to 31 % of simulated runs at 1 %, both together
    in at most 1.4 %.

    Healthy differences of exactly 0 are left out where there are others: an engine that repeats itself bit for bit says
    nothing of the noise between decoding and prefilling, and would only make rare what is not. Leaving them out can
    only raise the chance.
    """
    deltas = [each for answer in answers for each in answer]
    every = [each for answer in healthy for each in answer]
    moved = [each for each in every if each > 0]
    known = moved or every
    largest = max(known, default=None)
    beyond = sum(each > largest for each in deltas) if largest is not None else 0
    chance = least = of_tokens = None
    if largest is not None and deltas:
        by_answer, least_by_answer = _chance_of_answers(answers, healthy) if moved else (0.0, 0.0)
        of_tokens = chance_beyond(beyond, len(deltas), len(known))
        chance = max(of_tokens, by_answer)
        least = max(chance_beyond(len(deltas), len(deltas), len(known)), least_by_answer)
    return Excess(
        tokens=len(deltas), healthy=len(known), beyond=beyond, largest=largest, chance=chance, least=least,
        chance_of_tokens=of_tokens,
    )  # fmt: skip


def suspicion(seen: Excess, answers: int) -> str:
    """Why it cannot be judged, and what would help."""
    return (
        f"{seen.beyond} of {seen.tokens} logprob differences are beyond all {seen.healthy} healthy ones, but"
        f" {answers} healthy answers are too few to tell how much answers differ (p = {seen.chance:.3g}): raise"
        " --noise-floor"
    )


def _chance_of_answers(
    answers: Sequence[Sequence[float]], healthy: Sequence[Sequence[float]]
) -> tuple[float, float]:  # fmt: skip
    """The chance that these answers are as noisy as healthy ones, and the least that it could be: 1 with one healthy
    answer, since nothing tells how much answers vary; 0 where all but one have no noise at all."""
    size = _typical_size(answers)
    known = [scale for each in healthy if (scale := _scale([delta for delta in each if delta > 0][:size])) is not None]
    if len(known) < 2:
        return (1.0, 1.0) if len(healthy) < 2 else (0.0, 0.0)
    quietest = min(known)
    scales = (_scale(each) for each in answers if each)
    own = [quietest if scale is None else max(quietest, scale) for scale in scales]
    spread = stdev(known)
    above = mean(own) - mean(known)
    if spread == 0:
        return float(above <= 0), 0.0
    from scipy import stats

    error = spread * math.sqrt(1 / len(own) + 1 / len(known))
    return float(stats.t.sf(above / error, len(known) - 1)), 0.0


def _typical_size(answers: Sequence[Sequence[float]]) -> int:
    """Short answers vary more: healthy ones are cut to the median number of tokens."""
    return max(1, round(median(len(each) for each in answers if each)))


def _scale(deltas: Sequence[float]) -> float | None:
    """Logarithm of the root mean square; None where nothing moved."""
    square = math.fsum(each * each for each in deltas)
    return math.log(square / len(deltas)) / 2 if square > 0 else None


def chance_beyond(beyond: int, tokens: int, healthy: int) -> float:
    """P(at least `beyond` of `tokens` numbers exceed all of `healthy` others), all of them exchangeable: the `beyond`
    largest of all are among the `tokens`, C(healthy + tokens - beyond, healthy) / C(healthy + tokens, healthy)."""
    total = healthy + tokens
    return math.exp(
        math.fsum(math.log(tokens - place) - math.log(total - place) for place in range(beyond)) if beyond else 0.0
    )
