"""The noise floor: how far a healthy engine's decoding is from its own prefill, and what lies beyond that.

The baseline generates, then scores its own tokens: an engine compared with itself. The distribution of what comes out,
kept per model, prompt length and way of sampling, is the only source of thresholds here; nothing is a constant.

Judging by ranks needs no model of the noise. Of M healthy samples and one more, the new one is the most extreme with
probability 1/(M+1) and among the k most extreme with k/(M+1), whatever the distribution (exchangeability). `Reference`
turns a sample into one of four categories by that rule: `within`, `near` (beyond 99 in 100 healthy ones), `rare`
(beyond 999 in 1000) and `far` (beyond all of them). Far alone would hang on the one most extreme healthy sample.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ppd_accuracy.answers.buckets import prompt_bucket
from ppd_accuracy.answers.scores import Floats, Statistics

Category = Literal["within", "near", "rare", "far"]
Outcome = Literal["exact", "tie", "drift", "diverged"]
Sampling = Literal["greedy", "sampled", "shaped"]
"""How the engine chose tokens: the likeliest, by lot, or among logits that penalties, biases or a grammar changed."""
CATEGORIES: tuple[Category, ...] = ("within", "near", "rare", "far")
NEAR_SHARE = 0.01
"""Share of healthy samples beyond the near threshold: what is shown as drift though nothing is wrong."""
_RARE_SHARE = 0.001


Counts = tuple[int, int, int, int]
"""By category, in the order of CATEGORIES."""


class NoiseKey(NamedTuple):
    """What noise depends on. `bucket_tokens` is the upper end of the prompt-length bucket (256, 512, 1024, ...)."""

    model: str
    bucket_tokens: int
    sampling: Sampling

    @property
    def is_greedy(self) -> bool:
        return self.sampling == "greedy"

    @property
    def label(self) -> str:
        return f"{self.model}, prompts up to {self.bucket_tokens} tokens, {self.sampling}"


def key_of(model: str, prompt_tokens: int, sampling: Sampling) -> NoiseKey:
    return NoiseKey(model, prompt_bucket(prompt_tokens), sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`score` is the sample's place: 1 is the near threshold of whichever figure exceeds its own the most.
    `outcome` is for people, `category` for the sequential test."""

    outcome: Outcome
    category: Category
    score: float


class Tail:
    """The largest values of many tokens, and how surprising one more is as the largest of an answer.

    `tokens` is how many tokens the values are the largest of. Long answers have larger maxima: of n tokens the largest
    lies beyond c of N with a probability of about n (c + 1) / (N + 1).
    """

    def __init__(self, values: Iterable[float], tokens: int) -> None:
        # Not `sorted`: that keeps every other thread from its turn until it is done.
        self._values: list[float] = np.sort(np.fromiter(values, dtype=float)).tolist()
        self._tokens = tokens

    @property
    def largest(self) -> float:
        return self._values[-1] if self._values else 0.0

    def surprise(self, value: float, answer_tokens: int, own: Sequence[float] = ()) -> float:
        """Minus the logarithm of that probability; beyond all known values it goes on with their ratio. `own` are the
        values of the same answer, falling, where it is one of the known ones: it is held against the others."""
        if value <= 0:
            return 0.0
        beyond = max(0, len(self._values) - bisect_left(self._values, value) - bool(own))
        chance = min(1.0, answer_tokens * (beyond + 1) / (self._tokens + 1))
        if beyond > 0:
            return -math.log(chance)
        known = self._largest_but(own)
        return -math.log(chance) + (math.log(value / known) if 0 < known < value else 0.0 if known else math.inf)

    def _largest_but(self, own: Sequence[float]) -> float:
        left = list(own)
        for value in reversed(self._values):
            if value not in left:
                return value
            left.remove(value)
        return 0.0

    def value_at(self, surprise: float, answer_tokens: int) -> float:
        """The least known value that surprises more in an answer of that length; the largest where none does."""
        place = bisect_right(self._values, surprise, key=lambda value: self.surprise(value, answer_tokens))
        if place < len(self._values):
            return self._values[place]
        return self.largest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Thresholds of one key, from `samples` healthy samples, free of the answer's length; `shown` has them in nats for
    an answer of median length. `far_score` is the score of the most extreme healthy sample, `rare_score` that of the
    most extreme but one in a thousand; the same where there are too few."""

    samples: int
    mean: float
    near_mean: float
    near_delta: float
    near_margin: float
    rare_score: float
    far_score: float
    deltas: Tail
    margins: Tail
    counts: Counts
    """How many of `samples` + 1 exchangeable samples are expected in each category."""
    shown: Mapping[str, float]

    def judge(self, statistics: Statistics, *, is_greedy: bool) -> Judgement:
        """What a sample is, by the thresholds of its key.

        Greedy answers choose, so they are `diverged` when the baseline rejects a token by more than any healthy margin.
        Sampled answers only have their logprobs judged. A logprob that is no number is `diverged` in both.
        """
        mean = _ratio(_excess_mean(statistics, self.mean), self.near_mean)
        delta = _ratio(self.deltas.surprise(statistics.max_delta, statistics.tokens), self.near_delta)
        margin = 0.0
        if is_greedy:
            margin = _ratio(self.margins.surprise(statistics.margin, statistics.tokens), self.near_margin)
        # A short answer can be surprised by what a longer one had: far is only what none had.
        has_far_delta = delta > self.far_score and statistics.max_delta > self.deltas.largest
        has_far_margin = margin > self.far_score and statistics.margin > self.margins.largest
        score = max(mean, delta, margin)
        category: Category = "near" if score > 1 else "within"
        if self.rare_score < min(score, self.far_score):
            category = "rare"
        if mean > self.far_score or has_far_delta or has_far_margin or not statistics.is_finite:
            category = "far"
        if not statistics.is_finite or (has_far_margin if is_greedy else has_far_delta):
            return Judgement(outcome="diverged", category=category, score=score)
        outcome: Outcome = "exact"
        if max(mean, delta) > 1:
            outcome = "drift"
        elif is_greedy and statistics.first_difference is not None:
            outcome = "tie"
        return Judgement(outcome=outcome, category=category, score=score)


def reference_of(healthy: Iterable[Statistics]) -> Reference:
    """Thresholds from healthy samples; at least one."""
    samples = tuple(healthy)
    if not samples:
        raise ValueError("no healthy sample: a noise floor needs at least one")
    tokens = sum(each.tokens for each in samples)
    deltas = Tail((value for each in samples for value in each.largest), tokens)
    margins = Tail((value for each in samples for value in each.margins), tokens)
    mean = sum(each.mean_delta * each.tokens for each in samples) / tokens
    means = np.array([_excess_mean(each, mean) for each in samples])
    surprises = np.array([deltas.surprise(each.max_delta, each.tokens, each.largest) for each in samples])
    rejections = np.array([margins.surprise(each.margin, each.tokens, each.margins) for each in samples])
    place = max(1, round(len(samples) * NEAR_SHARE))
    near = [_highest(values, place) for values in (means, surprises, rejections)]
    ratios = [_ratios(values, each) for values, each in zip((means, surprises, rejections), near, strict=True)]
    scores = np.maximum.reduce(ratios)
    broken = sum(not each.is_finite for each in samples)
    rare_score = max(1.0, _highest(scores, max(1, round(len(samples) * _RARE_SHARE))))
    beyond_near, rare = int((scores > 1).sum()), int((scores > rare_score).sum())
    length = sorted(each.tokens for each in samples)[len(samples) // 2]
    return Reference(
        samples=len(samples),
        mean=mean,
        near_mean=near[0],
        near_delta=near[1],
        near_margin=near[2],
        rare_score=rare_score,
        far_score=max(1.0, float(scores.max())),
        deltas=deltas,
        margins=margins,
        counts=(len(samples) - beyond_near - broken, max(1, beyond_near - rare), rare, 1 + broken),
        shown={
            "tokens": length,
            "mean_delta": mean + max(0.0, near[0]) / math.sqrt(length),
            "max_delta": deltas.value_at(near[1], length),
            "far_delta": deltas.largest,
            "far_margin": margins.largest,
        },
    )


def _excess_mean(statistics: Statistics, mean: float) -> float:
    """How far a sample's mean difference is above that of all healthy tokens, free of the sample's length."""
    return (statistics.mean_delta - mean) * math.sqrt(statistics.tokens)


def _ratio(value: float, threshold: float) -> float:
    if threshold > 0:
        return value / threshold
    return 0.0 if value <= threshold else math.inf


def _highest(values: Floats, place: int) -> float:
    return float(np.sort(values)[-place])


def _ratios(values: Floats, threshold: float) -> Floats:
    return np.array([_ratio(float(value), threshold) for value in values])


class BaselineNoise:
    """Healthy samples by key, the latest `capacity` of each, and the reference they make.

    A reference exists from `least` samples on and is renewed whenever their number has doubled, so that what was judged
    by one stays comparable for a while.
    """

    def __init__(self, *, least: int, capacity: int) -> None:
        if not 1 <= least <= capacity:
            raise ValueError(f"least is {least} and capacity {capacity}; they must be 1 or more, in this order")
        self._least = least
        self._capacity = capacity
        self._samples: dict[NoiseKey, deque[Statistics]] = {}
        self._references: dict[NoiseKey, Reference] = {}

    @property
    def keys(self) -> tuple[NoiseKey, ...]:
        return tuple(self._samples)

    def samples(self, key: NoiseKey) -> tuple[Statistics, ...]:
        """Oldest first."""
        return tuple(self._samples.get(key, ()))

    def count(self, key: NoiseKey) -> int:
        return len(self._samples.get(key, ()))

    def missing(self, key: NoiseKey) -> int:
        """How many more healthy samples the key needs before anything of it can be judged."""
        return max(0, self._least - self.count(key))

    def reference(self, key: NoiseKey) -> Reference | None:
        return self._references.get(key)

    def due(self, key: NoiseKey, statistics: Statistics) -> tuple[Statistics, ...] | None:
        """What the reference is to be made of once `add` was given this sample; None where none is due then. Whoever
        cannot wait for `reference_of` makes it elsewhere and hands it to `add`."""
        samples = self._samples.get(key, ())
        count = min(len(samples) + 1, self._capacity)
        return (*samples, statistics)[-count:] if self._is_due(key, count) else None

    def add(self, key: NoiseKey, statistics: Statistics, made: Reference | None = None) -> bool:
        """One more healthy sample; whether the reference is a new one now. `made` is that of `due`; it is not used
        where the samples are others by now."""
        samples = self._samples.setdefault(key, deque(maxlen=self._capacity))
        samples.append(statistics)
        if not self._is_due(key, len(samples)):
            return False
        # The latest samples are kept whatever happens to the others, so that as many are the same ones.
        self._references[key] = made if made is not None and made.samples == len(samples) else reference_of(samples)
        return True

    def _is_due(self, key: NoiseKey, count: int) -> bool:
        """Whether so many samples make a new reference."""
        known = self._references.get(key)
        if known is None:
            return count >= self._least
        return known.samples < count >= min(2 * known.samples, self._capacity)

    def restart(self, key: NoiseKey, keep: int) -> None:
        """The noise has changed: forget all but the latest `keep` samples of the key, and its reference."""
        latest = list(self._samples.get(key, ()))[-keep:] if keep else []
        self._samples[key] = deque(latest, maxlen=self._capacity)
        self._references.pop(key, None)
        if len(latest) >= self._least:
            self._references[key] = reference_of(latest)
