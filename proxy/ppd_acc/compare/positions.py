"""Two answers token by token: what each engine thought of its token, and what the baseline's prefill thinks of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ppd_acc.ask.answers import Answer
from ppd_acc.compare.broken_numbers import is_targets_fault
from ppd_acc.data.report import Forced, Sample
from ppd_acc.outcome import Exit
from ppd_acc.views import counted, nats
from ppd_accuracy.answers.distributions import divergence
from ppd_accuracy.answers.flips import ReplayNoise, Token
from ppd_accuracy.answers.precision import Excess, excess, suspicion
from ppd_accuracy.answers.said import EMPTY, sentence
from ppd_wire.answers.scored import Position

DEFAULT_ALPHA = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One position, logprobs in nats. None is what an engine did not tell, or what is not comparable: behind the first
    difference (`is_common` False) the two engines are in different contexts.

    `delta` is target minus baseline of the same token, `divergence` KL(baseline || target) over the tokens both list
    and one bucket for the rest. A margin is how much likelier the token is than the next best one that its engine
    lists (negative: it is not the best), a rank its place there, from 1. `forced_*` are the target's own token in the
    baseline's prefill; `forced_delta` is target minus that.
    """

    position: int
    is_common: bool
    baseline_token: Token | None
    target_token: Token | None
    baseline_logprob: float | None
    target_logprob: float | None
    delta: float | None
    divergence: float | None
    baseline_margin: float | None
    target_margin: float | None
    baseline_rank: int | None
    target_rank: int | None
    forced_logprob: float | None
    forced_delta: float | None
    forced_margin: float | None
    forced_rank: int | None


def rows_of(baseline: Answer, target: Answer, common: int, forced: Sequence[Position] = ()) -> list[Row]:
    """One row per token of the longer answer. `common` tokens are before the first difference."""
    count = max(len(baseline.tokens), len(target.tokens))
    return [_row(place, place < common, baseline, target, forced) for place in range(count)]


def _row(place: int, is_common: bool, baseline: Answer, target: Answer, forced: Sequence[Position]) -> Row:
    mine, own, top = _told(baseline, place)
    theirs, other, other_top = _told(target, place)
    seen = forced[place] if place < len(forced) else None
    return Row(
        position=place,
        is_common=is_common,
        baseline_token=mine,
        target_token=theirs,
        baseline_logprob=own,
        target_logprob=other,
        delta=_minus(other, own) if is_common else None,
        divergence=divergence(top, other_top) if is_common and top and other_top else None,
        baseline_margin=_margin(mine, own, top),
        target_margin=_margin(theirs, other, other_top),
        baseline_rank=_rank(own, top),
        target_rank=_rank(other, other_top),
        forced_logprob=seen.logprob if seen is not None else None,
        forced_delta=_minus(other, seen.logprob) if seen is not None else None,
        forced_margin=seen.margin if seen is not None else None,
        forced_rank=seen.rank if seen is not None else None,
    )


def _told(answer: Answer, place: int) -> tuple[Token | None, float | None, Mapping[str, float]]:
    token = answer.tokens[place] if place < len(answer.tokens) else None
    logprob = answer.logprobs[place] if place < len(answer.logprobs) else None
    return token, logprob, answer.tops[place] if place < len(answer.tops) else {}


def _minus(one: float | None, other: float | None) -> float | None:
    return one - other if one is not None and other is not None else None


def _margin(token: Token | None, logprob: float | None, top: Mapping[str, float]) -> float | None:
    others = [number for name, number in top.items() if name != str(token)]
    return logprob - max(others) if logprob is not None and others else None


def _rank(logprob: float | None, top: Mapping[str, float]) -> int | None:
    return 1 + sum(number > logprob for number in top.values()) if logprob is not None and top else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two answers to one question, compared. `forced` is None where the baseline cannot score; `has_same_prompt` None
    where an engine does not tell its prompt's tokens."""

    name: str
    sample: Sample
    rows: list[Row]
    forced: Forced | None
    decoded: Excess
    prefilled: Excess
    has_same_prompt: bool | None

    @property
    def not_numbers(self) -> int:
        return self.sample.not_numbers + (self.forced.not_numbers if self.forced is not None else 0)

    @property
    def has_targets_fault(self) -> bool:
        """Whether the target gives no number where the baseline does, or after the first difference."""
        ours, theirs = self.sample.baseline.logprobs, self.sample.target.logprobs
        return is_targets_fault(self.sample) or (None in theirs and None not in ours)

    @property
    def is_bitwise_equal(self) -> bool:
        """Whether every number that both told of their decoding is the same."""
        return (
            self.sample.status == "equal"
            and bool(self.rows)
            and all(row.delta == 0 and row.divergence in (None, 0.0) for row in self.rows)
        )

    @property
    def largest_divergence(self) -> float | None:
        return max((row.divergence for row in self.rows if row.divergence is not None), default=None)

    @property
    def chance(self) -> float | None:
        """The smaller of the two tests' chances, doubled because it is the smaller of two."""
        known = [each.chance for each in (self.decoded, self.prefilled) if each.chance is not None]
        return min(1.0, len(known) * min(known)) if known else None

    @property
    def least_chance(self) -> float | None:
        known = [each.least for each in (self.decoded, self.prefilled) if each.least is not None]
        return min(1.0, len(known) * min(known)) if known else None

    def data(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "name": self.name,
            "has_same_prompt": self.has_same_prompt,
            "largest_divergence": self.largest_divergence,
            "infinite_divergences": sum(row.divergence == math.inf for row in self.rows),
            "chance": self.chance,
            "decoded": asdict(self.decoded),
            "prefilled": asdict(self.prefilled),
            "positions": [asdict(row) for row in self.rows],
        }


def comparison_of(
    name: str, sample: Sample, baseline: Answer, target: Answer, forced: Sequence[Position], told: Forced | None,
    floor: ReplayNoise,
) -> Comparison:  # fmt: skip
    """All figures of one pair; `forced` and `told` are empty and None where the baseline cannot score."""
    rows = rows_of(baseline, target, sample.compared_tokens if sample.unit == "tokens" else 0, forced)
    prompts = baseline.prompt_token_ids, target.prompt_token_ids
    healthy = floor.for_prompt(baseline.prompt_tokens).deltas_by_answer
    return Comparison(
        name=name,
        sample=sample,
        rows=rows,
        forced=told,
        decoded=excess([[abs(row.delta) for row in rows if row.delta is not None]], healthy),
        prefilled=excess([[abs(row.forced_delta) for row in rows if row.forced_delta is not None]], healthy),
        has_same_prompt=prompts[0] == prompts[1] if None not in prompts else None,
    )


def judge(found: Comparison, floor: ReplayNoise, *, alpha: float, limit: float | None) -> tuple[Exit, list[str]]:
    """How it ends and why. `limit` is of the divergence, None where nobody set one."""
    wrong = list(_wrong(found, alpha, limit))
    if wrong:
        return Exit.DIFFERENT, wrong
    if found.not_numbers:
        return Exit.INCONCLUSIVE, [f"{counted(found.not_numbers, 'logprob')} of the baseline missing or no number"]
    if found.sample.status == "empty":
        return Exit.INCONCLUSIVE, [EMPTY]
    if not found.rows:
        return Exit.INCONCLUSIVE, ["neither engine generated a token: nothing was compared"]
    if found.is_bitwise_equal:
        return Exit.PASS, ["every logprob is the same, bit for bit"]
    if found.sample.status == "unclassified":
        return Exit.INCONCLUSIVE, ["the first difference cannot be classified by margins"]
    if floor.broken or found.chance is None:
        return Exit.INCONCLUSIVE, ["there is no noise floor to hold the differences against (--noise-floor N)"]
    if found.least_chance is not None and found.least_chance >= alpha:
        return Exit.INCONCLUSIVE, [
            f"{counted(found.decoded.tokens, 'token')} against {found.decoded.healthy} healthy ones cannot show"
            f" p < {alpha:g}; raise --noise-floor or --max-tokens"
        ]
    suspicious = next((each for each in (found.decoded, found.prefilled) if each.is_suspicious(alpha)), None)
    if suspicious is not None:
        return Exit.INCONCLUSIVE, [suspicion(suspicious, floor.answers)]
    what = "the first difference is a tie and the logprobs" if found.sample.status == "tie" else "the logprobs"
    return Exit.PASS, [f"{what} are as close as the baseline is to itself (p = {found.chance:.3g})"]


def _wrong(found: Comparison, alpha: float, limit: float | None) -> list[str]:
    wrong = []
    if found.has_targets_fault:
        broken = counted(found.not_numbers, "logprob is missing or no number", "logprobs are missing or no numbers")
        wrong.append(broken)
    if found.has_same_prompt is False:
        wrong.append("the prompt has other tokens on the target: tokenizer or chat template differ")
    if found.sample.status == "real":
        why = ", ".join(found.sample.tags) or "no healthy token moved as much"
        told = "" if found.sample.flip is not None else sentence(found.sample.differences)
        wrong.append(f"the first difference is real: {why}{told and f' ({told})'}")
    if found.sample.is_unexplained:
        wrong.append(f"no token tells where, but the answers differ: {sentence(found.sample.differences)}")
    if found.chance is not None and found.chance < alpha:
        worst = max((found.decoded, found.prefilled), key=lambda each: -1.0 if each.chance is None else -each.chance)
        # Behind a real difference, precision need not be what was lost.
        named = "" if found.sample.status == "real" else ": lost precision"
        text = "the same tokens, but " if found.sample.status == "equal" else ""
        wrong.append(
            f"{text}{worst.beyond} of {worst.tokens} logprob differences are beyond all {worst.healthy} healthy ones,"
            f" the largest {nats(worst.largest)} (p = {found.chance:.3g}){named}"
        )
    largest = found.largest_divergence
    if limit is not None and largest is not None and not largest <= limit:
        told = f"{largest:.4g}" if math.isfinite(largest) else "infinite"
        wrong.append(f"the largest KL divergence is {told} nats, above --kl-threshold {limit:g}")
    return wrong
