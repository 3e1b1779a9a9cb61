"""One answer, token by token: what the candidate thought of its own tokens, and what the baseline thinks of them.

Logprobs are natural logarithms as vLLM reports them (before temperature). The candidate's were computed while decoding
on transferred KV, the baseline's in one prefill over the same tokens (teacher forcing), so every position is compared
in the same context and nothing compounds after a first difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KEPT_DELTAS, KEPT_MARGINS = 8, 4
"""How many of a sample's largest differences and margins are kept: enough for the tail of their distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Arrays of one length, one element per answer token. NaN where an engine gave no finite number.

    `margin` is how much likelier the baseline's best token is (0 where the answer has it), `rank` the token's place in
    the baseline's order, 1 for the best.
    """

    candidate: Floats
    baseline: Floats
    margin: Floats
    rank: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(self.candidate), len(self.baseline), len(self.margin), len(self.rank)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"scores of {sorted(lengths)} tokens; all must be of the same tokens, at least one")


class Seen(Protocol):
    """One token of an answer as another engine's prefill sees it; None where that has no finite number."""

    @property
    def logprob(self) -> float | None: ...

    @property
    def margin(self) -> float | None: ...

    @property
    def rank(self) -> int | None: ...


def scores_of(candidate: Sequence[float | None], baseline: Sequence[Seen]) -> Scores:
    """One answer, by its own engine's logprobs and another one's prefill; a rank that is not known is 0."""
    return Scores(
        candidate=np.array(candidate, dtype=float),
        baseline=np.array([each.logprob for each in baseline], dtype=float),
        margin=np.array([each.margin for each in baseline], dtype=float),
        rank=np.array([each.rank or 0 for each in baseline], dtype=np.int64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one sample is judged by: differences |candidate - baseline| in nats over its tokens.

    `first_difference` is the position of the first token that is not the baseline's best, None without one;
    `first_margin` its margin. `margin` is the largest. `is_finite` is False where a logprob was missing or NaN; the
    figures are of the finite tokens then, 0 without any.
    """

    tokens: int
    mean_delta: float
    max_delta: float
    max_delta_at: int
    likelihood_delta: float
    """Log-likelihood of the whole answer, candidate minus baseline."""
    margin: float
    first_difference: int | None
    first_margin: float
    token_accuracy: float
    """Share of the tokens that are the baseline's best."""
    is_finite: bool
    largest: tuple[float, ...] = ()
    """The largest differences, falling, at most KEPT_DELTAS; `max_delta` is the first."""
    margins: tuple[float, ...] = ()
    """The largest margins, falling, at most KEPT_MARGINS."""


BROKEN = Statistics(
    tokens=1,
    mean_delta=0.0,
    max_delta=0.0,
    max_delta_at=0,
    likelihood_delta=0.0,
    margin=0.0,
    first_difference=0,
    first_margin=0.0,
    token_accuracy=0.0,
    is_finite=False,
)
"""Of an answer of which nothing is known but that a logprob was no number."""


def summarize(scores: Scores) -> Statistics:
    """The statistics of one answer."""
    delta = scores.candidate - scores.baseline
    finite = np.isfinite(delta) & np.isfinite(scores.margin)
    size = np.where(finite, np.abs(delta), 0.0)
    margin = np.where(finite, scores.margin, 0.0)
    others = np.flatnonzero(scores.rank > 1)
    first = int(others[0]) if len(others) else None
    count = int(finite.sum())
    return Statistics(
        tokens=len(delta),
        mean_delta=float(size.sum() / count) if count else 0.0,
        max_delta=float(size.max()),
        max_delta_at=int(size.argmax()),
        likelihood_delta=float(np.where(finite, delta, 0.0).sum()),
        margin=float(margin.max()),
        first_difference=first,
        first_margin=float(margin[first]) if first is not None else 0.0,
        token_accuracy=1 - len(others) / len(delta),
        is_finite=count == len(delta),
        largest=tuple(np.sort(size)[::-1][:KEPT_DELTAS].tolist()),
        margins=tuple(np.sort(margin)[::-1][:KEPT_MARGINS].tolist()),
    )
