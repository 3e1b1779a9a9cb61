"""Where two greedy answers to one prompt part, and whether that is a tie or a fault.

Up to the first difference both engines were in the same context. There each took its own likeliest token. The baseline
preferred its token by `baseline_margin`, the target its own by `target_margin` (nats, both 0 or more), so between the
two engines the difference of these two tokens' logprobs has moved by `shift`, the sum of both. A healthy engine's
decoding and prefilling move it, too: by how much is measured, not assumed (`ReplayNoise`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ppd_accuracy.answers.buckets import prompt_bucket

Judgement = Literal["tie", "real", "unclassified"]
Token = int | str
FALSE_ALARMS = 0.01
"""How often a run of healthy comparisons may have a difference that is called real: as the verdicts' days."""
_LEAST_TAIL = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFlip:
    """The first difference of two answers. `position` counts from 0. A token is None where its answer had ended.

    A margin is None where an engine told too little. `is_bound`: one engine does not list the other's token, so its
    margin is at least what is given.
    """

    position: int
    baseline_token: Token | None
    target_token: Token | None
    baseline_margin: float | None
    target_margin: float | None
    is_bound: bool

    @property
    def shift(self) -> float | None:
        """By how much the engines disagree on these two tokens: None where neither told, a bound where one did."""
        known = [each for each in (self.baseline_margin, self.target_margin) if each is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One answer of a healthy engine against itself. `shifts`: by how much the difference of the two likeliest tokens
    moved, one per token; `deltas`: |logprob difference| of the token itself; both finite, `broken` numbers were not.
    `is_flipped`: it was not the same when asked again. `prompt_tokens` is None where the engine did not tell."""

    prompt_tokens: int | None = None
    is_flipped: bool = False
    is_scored: bool = True
    broken: int = 0
    shifts: tuple[float, ...] = field(default=(), repr=False)
    deltas: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayNoise:
    """How far a healthy engine is from itself: the baseline's decoding against its own prefill, and against a replay.

    `shifts` and `deltas` are those of all answers `measured`, ascending; `flips` of these were not the same when asked
    again. `broken` numbers were none: a baseline that gives NaN judges nothing. `is_scored`: some were scored by the
    baseline's prefill, so the floor is not one of replays alone. `family_tokens`: how many tokens one run compares, of
    which one may be called real for nothing with a probability of at most FALSE_ALARMS. `longer`: by prompt-length
    bucket, ascending, the floor of the answers to prompts of that bucket or a longer one. `failed` answers were asked
    for and could not be measured, the first because of `failure`.
    """

    answers: int = 0
    flips: int = 0
    broken: int = 0
    is_scored: bool = True
    family_tokens: int = 0
    failed: int = 0
    failure: str | None = None
    shifts: tuple[float, ...] = field(default=(), repr=False)
    deltas: tuple[float, ...] = field(default=(), repr=False)
    longer: tuple[tuple[int, ReplayNoise], ...] = field(default=(), repr=False)
    measured: tuple[Measured, ...] = field(default=(), repr=False)

    @property
    def tokens(self) -> int:
        return len(self.shifts)

    @property
    def largest_shift(self) -> float | None:
        return self.shifts[-1] if self.shifts else None

    @property
    def largest_delta(self) -> float | None:
        return self.deltas[-1] if self.deltas else None

    @property
    def longest_prompt(self) -> int | None:
        """Tokens of the longest prompt that was measured; None where no engine told."""
        return max((each.prompt_tokens for each in self.measured if each.prompt_tokens is not None), default=None)

    @property
    def deltas_by_answer(self) -> list[tuple[float, ...]]:
        return [each.deltas for each in self.measured]

    def for_prompt(self, prompt_tokens: int | None) -> ReplayNoise:
        """What judges an answer to a prompt of that length: noise grows with the context, so only answers to prompts
        of its bucket and of longer ones count. Measured on shorter ones alone, it is a floor that judges nothing. All
        of it where a length is not known."""
        if prompt_tokens is None or not self.longer:
            return self
        wanted = prompt_bucket(prompt_tokens)
        for bucket, part in self.longer:
            if bucket >= wanted:
                return replace(part, broken=self.broken, family_tokens=self.family_tokens)
        return ReplayNoise()

    def of_run(self, comparisons: int) -> ReplayNoise:
        """The floor for a run of so many comparisons, of answers as long as those it was measured on."""
        if not self.answers:
            return self
        return replace(self, family_tokens=math.ceil(comparisons * self.tokens / self.answers))

    def judge(self, flip: TokenFlip) -> Judgement:
        """`tie`: some healthy token moved at least as much. `real`: none did, and it is unlikely that one of the tokens
        compared would (`chance`). `unclassified`: neither is sure: nothing was measured (or something that is no
        number), no engine told its margins, only a bound within the noise, or a floor too small to tell."""
        chance, shift = self.chance(flip), flip.shift
        if chance is None or shift is None or self.broken:
            return "unclassified"
        if shift <= self.shifts[-1]:
            return "unclassified" if flip.is_bound else "tie"
        # Replays of a deterministic engine are equal bit for bit: that says nothing of decoding against prefilling.
        is_silent = not self.is_scored and self.shifts[-1] == 0
        return "unclassified" if is_silent or chance > FALSE_ALARMS else "real"

    def chance(self, flip: TokenFlip) -> float | None:
        """An upper bound of how likely one of the compared tokens, all healthy, moves as much. None without a floor.

        Of N healthy shifts and one more, the new one is among the k largest with k / (N + 1). Beyond the largest, the
        tail goes on as a power of the shift (Weissman 1978) whose exponent is Hill's estimate from the largest sqrt(N)
        shifts, two standard errors on the safe side; with fewer than 10 of them, as one over the shift.
        """
        shift = flip.shift
        if not self.shifts or shift is None or math.isnan(shift):
            return None
        compared = max(flip.position + 1, self.family_tokens)
        beyond = self.tokens - bisect_left(self.shifts, shift)
        return (
            min(1.0, compared * (1 + beyond) / (1 + self.tokens)) if beyond else min(1.0, compared * self._tail(shift))
        )

    def _tail(self, shift: float) -> float:
        """Bound of the chance that one healthy token moves by `shift`, which is more than any did."""
        largest = self.shifts[-1]
        if largest == 0:
            return 0.0
        by_rank = largest / shift / (1 + self.tokens)
        count = math.isqrt(self.tokens)
        start = self.shifts[-count - 1] if count < self.tokens else 0.0
        if count < _LEAST_TAIL or start <= 0:
            return by_rank
        index = sum(math.log(each / start) for each in self.shifts[-count:]) / count
        if index <= 0:
            return by_rank
        exponent = 1 / min(1.0, index * (1 + 2 / math.sqrt(count)))
        return float((largest / shift) ** exponent / (1 + self.tokens))


def first_difference(one: Sequence[Token], other: Sequence[Token]) -> int | None:
    """Position of the first token that differs or is missing in one of them; None where both are the same."""
    for position, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return position
    return None if len(one) == len(other) else min(len(one), len(other))


def flip_of(
    position: int,
    baseline: Sequence[Token],
    target: Sequence[Token],
    baseline_tops: Sequence[Mapping[str, float]],
    target_tops: Sequence[Mapping[str, float]],
) -> TokenFlip:
    """What both engines told of the first difference. `tops` map tokens, as `str(token)`, to logprobs (nats)."""
    theirs = baseline[position] if position < len(baseline) else None
    ours = target[position] if position < len(target) else None
    baseline_margin, has_bound = _margin(baseline_tops, position, theirs, ours)
    target_margin, has_other_bound = _margin(target_tops, position, ours, theirs)
    return TokenFlip(
        position=position,
        baseline_token=theirs,
        target_token=ours,
        baseline_margin=baseline_margin,
        target_margin=target_margin,
        is_bound=has_bound or has_other_bound or baseline_margin is None or target_margin is None,
    )


def _margin(
    tops: Sequence[Mapping[str, float]], position: int, chosen: Token | None, other: Token | None
) -> tuple[float | None, bool]:
    """How much an engine preferred its token to the other one, and whether that is only a lower bound."""
    top = tops[position] if position < len(tops) else {}
    mine = top.get(str(chosen)) if chosen is not None else None
    if mine is None or other is None:
        return None, True
    theirs = top.get(str(other))
    if theirs is not None:
        return max(0.0, mine - theirs), False
    return max(0.0, mine - min(top.values())), True


def measure(
    shifts: Iterable[float], deltas: Iterable[float], *, prompt_tokens: int | None = None, is_flipped: bool = False,
    is_scored: bool = True,
) -> Measured:  # fmt: skip
    """One answer's numbers; those that are none (NaN, infinite) are counted and left out."""
    sizes = [abs(each) for each in shifts], [abs(each) for each in deltas]
    moved, different = (tuple(each for each in numbers if math.isfinite(each)) for numbers in sizes)
    return Measured(
        prompt_tokens=prompt_tokens,
        is_flipped=is_flipped,
        is_scored=is_scored,
        broken=sum(map(len, sizes)) - len(moved) - len(different),
        shifts=moved,
        deltas=different,
    )


def replay_noise_of(measured: Iterable[Measured]) -> ReplayNoise:
    """The floor of these answers."""
    every = tuple(measured)
    of_buckets: dict[int, list[Measured]] = {}
    for each in every:
        if each.prompt_tokens is not None:
            of_buckets.setdefault(prompt_bucket(each.prompt_tokens), []).append(each)
    pooled: list[Measured] = []
    longer: list[tuple[int, ReplayNoise]] = []
    for bucket in sorted(of_buckets, reverse=True):
        pooled += of_buckets[bucket]
        longer.insert(0, (bucket, _pooled(pooled)))
    return replace(_pooled(every), longer=tuple(longer))


def _pooled(measured: Sequence[Measured]) -> ReplayNoise:
    return ReplayNoise(
        answers=len(measured),
        flips=sum(each.is_flipped for each in measured),
        broken=sum(each.broken for each in measured),
        is_scored=any(each.is_scored for each in measured),
        shifts=tuple(sorted(shift for each in measured for shift in each.shifts)),
        deltas=tuple(sorted(delta for each in measured for delta in each.deltas)),
        measured=tuple(measured),
    )
