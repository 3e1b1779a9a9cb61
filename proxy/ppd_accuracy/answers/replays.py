"""Two answers to the same request side by side: the candidate's and a replay on the baseline.

For what cannot be scored. Only greedy or seeded answers are comparable, and only up to the first difference: behind it
the two are in different contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ppd_accuracy.answers.said import calls_of


class ReplaySide(NamedTuple):
    """One answer. `tokens` are token ids, or words where an engine gives no ids. `max_tokens` is the limit, if any."""

    tokens: Sequence[int | str]
    finish_reason: str | None = None
    tool_calls: Sequence[dict[str, Any]] = ()


class ReplayDifference(NamedTuple):
    """`prefix_tokens` are equal in both. `length_delta` is candidate minus baseline; `is_censored`: one of them was cut
    at its token limit, so the true difference is at least that. `token_accuracy`: equal share of the longer answer."""

    prefix_tokens: int
    token_accuracy: float
    first_difference: int | None
    length_delta: int
    is_censored: bool
    has_same_finish: bool
    has_same_tools: bool


def compare(candidate: ReplaySide, baseline: ReplaySide) -> ReplayDifference:
    """What differs between two answers."""
    prefix = 0
    for one, other in zip(candidate.tokens, baseline.tokens, strict=False):
        if one != other:
            break
        prefix += 1
    longest = max(len(candidate.tokens), len(baseline.tokens))
    return ReplayDifference(
        prefix_tokens=prefix,
        token_accuracy=prefix / longest if longest else 1.0,
        first_difference=prefix if prefix < longest else None,
        length_delta=len(candidate.tokens) - len(baseline.tokens),
        is_censored="length" in (candidate.finish_reason, baseline.finish_reason),
        has_same_finish=candidate.finish_reason == baseline.finish_reason,
        has_same_tools=calls_of(candidate.tool_calls) == calls_of(baseline.tool_calls),
    )
