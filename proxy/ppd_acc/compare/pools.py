"""Several comparisons of one kind, judged together against one noise floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ppd_acc.compare.broken_numbers import BASELINE_BROKEN
from ppd_acc.data.report import SAME_TOKENS, STATUSES, Sample
from ppd_acc.outcome import Exit
from ppd_acc.views import counted, empty_too, nats
from ppd_accuracy.answers.flips import ReplayNoise
from ppd_accuracy.answers.precision import Excess, excess, suspicion
from ppd_accuracy.answers.said import EMPTY, sentence
from ppd_accuracy.statistics.intervals import Interval, difference, wilson

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`counts` by status. `divergent` are ties, real and unclassified differences among `compared` answers, `interval`
    Wilson's of their share; `above_floor` Newcombe's of that share minus the share of the baseline's own replays that
    differ, None without any. `precision` is of the logprobs before the first differences."""

    exit: Exit
    reasons: tuple[str, ...]
    counts: dict[str, int]
    compared: int
    divergent: int
    interval: Interval
    above_floor: Interval | None
    precision: Excess
    largest_delta: float | None
    not_numbers: int

    @property
    def is_empty(self) -> bool:
        """Whether all that was answered was empty."""
        return not self.compared and self.counts["empty"] > 0 and not self.counts["error"]

    @property
    def is_above_floor(self) -> bool:
        """Whether answers differ more often than the baseline's replays do, by more than chance."""
        return self.above_floor is not None and self.above_floor.low > 0


def deltas_of(sample: Sample) -> list[float]:
    """|logprob difference| in nats of the tokens before the first difference, where both engines told a number."""
    if sample.unit != "tokens" or not sample.baseline.logprobs or not sample.target.logprobs:
        return []
    pairs = zip(
        sample.baseline.logprobs[: sample.compared_tokens], sample.target.logprobs[: sample.compared_tokens],
        strict=True,
    )  # fmt: skip
    deltas = (abs(one - other) for one, other in pairs if one is not None and other is not None)
    return [each for each in deltas if math.isfinite(each)]


def judge_together(
    samples: Sequence[Sample], floor: ReplayNoise, *, alpha: float, more_deltas: Sequence[Sequence[float]] = ()
) -> Verdict:  # fmt: skip
    """Differences first, then failures, then what could not be judged; `alpha` is for the test of the logprobs, which
    `more_deltas`, by answer, take part in (NaN is no number)."""
    counts: dict[str, int] = {status: sum(sample.status == status for sample in samples) for status in STATUSES}
    compared = len(samples) - counts["error"] - counts["empty"]
    divergent = counts["tie"] + counts["real"] + counts["unclassified"]
    more = [delta for deltas in more_deltas for delta in deltas]
    answers = [deltas_of(sample) for sample in samples]
    answers += [[delta for delta in deltas if math.isfinite(delta)] for deltas in more_deltas]
    deltas = [delta for answer in answers for delta in answer]
    longest = max((sample.prompt_tokens or 0 for sample in samples), default=0)
    precision = excess(answers, floor.for_prompt(longest or None).deltas_by_answer)
    broken = sum(sample.not_numbers for sample in samples if BASELINE_BROKEN not in sample.tags)
    broken += sum(not math.isfinite(delta) for delta in more)
    code, reasons = _judge(samples, counts, precision, deltas, floor, alpha, broken)
    if compared:
        reasons[-1] += empty_too(counts["empty"])
    return Verdict(
        exit=code,
        reasons=tuple(reasons),
        counts=counts,
        compared=compared,
        divergent=divergent,
        interval=wilson(divergent, compared, CONFIDENCE),
        above_floor=(
            difference(divergent, compared, floor.flips, floor.answers, CONFIDENCE) if floor.answers else None
        ),
        precision=precision,
        largest_delta=max(deltas, default=None),
        not_numbers=broken,
    )


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Plain types for JSON."""
    above = verdict.above_floor
    return {
        **asdict(verdict),
        "exit": int(verdict.exit),
        "interval": verdict.interval._asdict(),
        "above_floor": above._asdict() if above is not None else None,
    }


def _judge(
    samples: Sequence[Sample], counts: dict[str, int], precision: Excess, deltas: Sequence[float], floor: ReplayNoise,
    alpha: float, broken: int,
) -> tuple[Exit, list[str]]:  # fmt: skip
    wrong = []
    if broken:
        wrong.append(counted(broken, "logprob is missing or no number", "logprobs are missing or no numbers"))
    if counts["real"]:
        lost = sum("empty" in sample.tags or "cut-short" in sample.tags for sample in samples)
        ended = f"{counted(lost, 'answer is', 'answers are')} empty or cut short"
        read = sum(SAME_TOKENS in sample.tags for sample in samples)
        why = ended if lost else "the same tokens are read differently" if read else "no healthy token moved as much"
        wrong.append(f"{counted(counts['real'], 'real difference')}: {why}")
    if precision.chance is not None and precision.chance < alpha:
        wrong.append(
            f"{precision.beyond} of {precision.tokens} logprob differences are beyond all {precision.healthy} healthy"
            f" ones, the largest {nats(precision.largest)} (p = {precision.chance:.3g}): lost precision"
        )
    if wrong:
        return Exit.DIFFERENT, wrong
    if counts["error"]:
        failed = next(sample.error for sample in samples if sample.status == "error")
        return Exit.INFRASTRUCTURE, [f"{counts['error']} of {len(samples)} comparisons failed: {failed}"]
    if counts["empty"] == len(samples) and samples:
        return Exit.INCONCLUSIVE, [EMPTY]
    if not any(sample.compared_tokens or sample.is_divergent for sample in samples):
        return Exit.INCONCLUSIVE, ["no token was compared"]
    if broken_baselines := sum(BASELINE_BROKEN in sample.tags for sample in samples):
        why = "the baseline itself gave NaN or infinite logprobs, which prove nothing"
        return Exit.INCONCLUSIVE, [f"{counted(broken_baselines, 'answer')} cannot be judged: {why}"]
    if counts["unclassified"]:
        told = counted(counts["unclassified"], "difference")
        first = next((sample.differences for sample in samples if sample.is_unexplained), ())
        which = f" ({sentence(first)})" if first else ""
        return Exit.INCONCLUSIVE, [f"{told} cannot be classified by margins{which}"]
    if precision.is_suspicious(alpha):
        return Exit.INCONCLUSIVE, [suspicion(precision, floor.answers)]
    if counts["tie"] == 0 and not any(deltas):
        return Exit.PASS, ["equal, bit for bit" if deltas else "equal; no logprobs were told"]
    if floor.broken or (precision.chance is None and deltas):
        return Exit.INCONCLUSIVE, ["there is no noise floor to hold the logprobs against (--noise-floor N)"]
    if precision.least is not None and precision.least >= alpha:
        return Exit.INCONCLUSIVE, [
            f"{counted(precision.tokens, 'token')} against {precision.healthy} healthy ones cannot show p < {alpha:g}"
        ]
    ties = f"{counted(counts['tie'], 'tie')}; " if counts["tie"] else ""
    return Exit.PASS, [f"{ties}logprobs as close as the baseline is to itself"]
