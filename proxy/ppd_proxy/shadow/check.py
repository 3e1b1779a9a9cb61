"""One finished comparison, before and after its judgement."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ppd_accuracy.answers.replays import ReplayDifference
from ppd_accuracy.answers.scores import Scores, Statistics
from ppd_accuracy.answers.spread import Spread
from ppd_accuracy.verdicts.noise import Judgement, Reference
from ppd_accuracy.verdicts.rows import SampleRow
from ppd_proxy.shadow.sample import Sample


class Check(NamedTuple):
    """`difference` of a replay only, `spread` where the likeliest tokens were asked for; `took_ms` is the baseline's
    time. Without `scores` the engine had none to tell."""

    sample: Sample
    method: Literal["score", "replay"]
    statistics: Statistics
    scores: Scores | None
    difference: ReplayDifference | None
    took_ms: float
    spread: Spread | None = None


def row_of(check: Check, judgement: Judgement, reference: Reference | None) -> SampleRow:
    """What the journal keeps of it."""
    sample, scores, statistics = check.sample, check.scores, check.statistics
    candidate = sample.candidate
    return SampleRow(
        sample_id=sample.id,
        at=sample.at,
        model=sample.model,
        route=sample.route,
        pair=sample.pair,
        filled_by=sample.filled_by,
        turn=sample.turn,
        reason=sample.reason,
        method=check.method,
        outcome=judgement.outcome,
        category=judgement.category,
        prompt_tokens=sample.prompt_tokens,
        answer_tokens=len(candidate.token_ids),
        prompt_token_ids=candidate.prompt_token_ids,
        token_ids=candidate.token_ids,
        candidate_logprobs=candidate.logprobs,
        baseline_logprobs=scores.baseline.tolist() if scores is not None else None,
        ranks=scores.rank.tolist() if scores is not None else None,
        margins=scores.margin.tolist() if scores is not None else None,
        max_delta=statistics.max_delta,
        mean_delta=statistics.mean_delta,
        threshold=reference.shown["far_delta"] if reference is not None else None,
        noise_samples=reference.samples if reference is not None else None,
        finish_reason=candidate.finish_reason,
        replay=check.difference._asdict() if check.difference is not None else None,
        timings={"baseline": check.took_ms},
        transfer=msgspec.to_builtins(sample.transfer) if sample.transfer is not None else None,
        spread=check.spread._asdict() if check.spread is not None else None,
        spec=msgspec.to_builtins(candidate.acceptance) if candidate.acceptance is not None else None,
        body=sample.body,
        text=candidate.text,
        error=None if scores is not None else "a logprob was no number, which the engine's answer could not hold",
    )
