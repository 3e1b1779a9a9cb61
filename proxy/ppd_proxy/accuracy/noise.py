"""The noise floor: how far a healthy engine's decoding is from its own prefill, and what lies beyond that.

The baseline generates, then scores its own tokens: an engine compared with itself. The distribution of what comes out,
kept per model, prompt length and way of sampling, is the only source of thresholds here; nothing is a constant.

Judging by ranks needs no model of the noise. Of M healthy samples and one more, the new one is the most extreme with
probability 1/(M+1) and among the k most extreme with k/(M+1), whatever the distribution (exchangeability). `Reference`
turns a sample into one of three categories by that rule: `within`, `near` (beyond 99 in 100 healthy ones) and `far`
(beyond all of them).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ppd_proxy.accuracy.scores import Floats, Statistics

Category = Literal["within", "near", "far"]
Outcome = Literal["exact", "tie", "drift", "diverged"]
CATEGORIES: tuple[Category, ...] = ("within", "near", "far")
NEAR_SHARE = 0.01
"""Share of healthy samples beyond the near threshold: what is shown as drift though nothing is wrong."""
_FIRST_BUCKET_TOKENS = 256
_BUCKET_RATIO = 4


class Key(NamedTuple):
    """What noise depends on. `bucket_tokens` is the upper end of the prompt-length bucket (256, 1024, 4096, ...)."""

    model: str
    bucket_tokens: int
    is_greedy: bool

    @property
    def label(self) -> str:
        return f"{self.model}, prompts up to {self.bucket_tokens} tokens, {'greedy' if self.is_greedy else 'sampled'}"


def key_of(model: str, prompt_tokens: int, *, is_greedy: bool) -> Key:
    bucket = _FIRST_BUCKET_TOKENS
    while bucket < prompt_tokens:
        bucket *= _BUCKET_RATIO
    return Key(model, bucket, is_greedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`score` is the sample's place: 1 is the near threshold of mean or largest difference, whichever it exceeds more.
    `outcome` is for people, `category` for the sequential test."""

    outcome: Outcome
    category: Category
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Thresholds of one key, from `samples` healthy samples. Differences and margins in nats."""

    samples: int
    near_mean: float
    near_max: float
    far_score: float
    far_max: float
    far_margin: float
    counts: tuple[int, int, int]
    """How many of `samples` + 1 exchangeable samples are expected within, near and far."""

    def judge(self, statistics: Statistics, *, is_greedy: bool) -> Judgement:
        """What a sample is, by the thresholds of its key.

        Greedy answers choose, so they are `diverged` when the baseline rejects a token by more than any healthy margin.
        Sampled answers only have their logprobs judged. A logprob that is no number is `diverged` in both.
        """
        score = max(_ratio(statistics.mean_delta, self.near_mean), _ratio(statistics.max_delta, self.near_max))
        category: Category = "far" if score > self.far_score else "near" if score > 1 else "within"
        rejects = statistics.margin > self.far_margin if is_greedy else statistics.max_delta > self.far_max
        if not statistics.is_finite or rejects:
            return Judgement(outcome="diverged", category="far", score=score)
        outcome: Outcome = "exact"
        if category != "within":
            outcome = "drift"
        elif is_greedy and statistics.first_difference is not None:
            outcome = "tie"
        return Judgement(outcome=outcome, category=category, score=score)


def _ratio(value: float, threshold: float) -> float:
    if threshold > 0:
        return value / threshold
    return 0.0 if value == 0 else math.inf


def reference_of(healthy: Iterable[Statistics]) -> Reference:
    """Thresholds from healthy samples; at least one."""
    rows = np.array([(each.mean_delta, each.max_delta, each.margin) for each in healthy])
    if not len(rows):
        raise ValueError("no healthy sample: a noise floor needs at least one")
    near_count = max(1, round(len(rows) * NEAR_SHARE))
    near_mean, near_max = (_highest(rows[:, column], near_count) for column in (0, 1))
    scores = np.maximum(_ratios(rows[:, 0], near_mean), _ratios(rows[:, 1], near_max))
    beyond_near = int((scores > 1).sum()) + 1
    far_max = float(rows[:, 1].max())
    return Reference(
        samples=len(rows),
        near_mean=near_mean,
        near_max=near_max,
        far_score=max(1.0, float(scores.max())),
        far_max=far_max,
        far_margin=float(rows[:, 2].max()),
        # Two ways of being far, score and margin: each has one place of its own in M + 1.
        counts=(len(rows) + 1 - beyond_near, max(1, beyond_near - 2), 2),
    )


def _highest(values: Floats, place: int) -> float:
    return float(np.sort(values)[-place])


def _ratios(values: Floats, threshold: float) -> Floats:
    if threshold > 0:
        return values / threshold
    return np.where(values == 0, 0.0, math.inf)


class NoiseFloor:
    """Healthy samples by key, the latest `capacity` of each, and the reference they make.

    A reference exists from `least` samples on and is renewed whenever their number has doubled, so that what was judged
    by one stays comparable for a while; `generation` of a key counts the renewals.
    """

    def __init__(self, *, least: int, capacity: int) -> None:
        if not 1 <= least <= capacity:
            raise ValueError(f"least is {least} and capacity {capacity}; they must be 1 or more, in this order")
        self._least = least
        self._capacity = capacity
        self._samples: dict[Key, deque[Statistics]] = {}
        self._references: dict[Key, Reference] = {}
        self._generations: dict[Key, int] = {}

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(self._samples)

    def count(self, key: Key) -> int:
        return len(self._samples.get(key, ()))

    def missing(self, key: Key) -> int:
        """How many more healthy samples the key needs before anything of it can be judged."""
        return max(0, self._least - self.count(key))

    def reference(self, key: Key) -> Reference | None:
        return self._references.get(key)

    def generation(self, key: Key) -> int:
        return self._generations.get(key, 0)

    def add(self, key: Key, statistics: Statistics) -> bool:
        """One more healthy sample; whether the reference is a new one now."""
        samples = self._samples.setdefault(key, deque(maxlen=self._capacity))
        samples.append(statistics)
        known = self._references.get(key)
        is_due = len(samples) >= (self._least if known is None else min(2 * known.samples, self._capacity))
        if not is_due or (known is not None and known.samples >= len(samples)):
            return False
        self._renew(key)
        return True

    def restart(self, key: Key, keep: int) -> None:
        """The noise has changed: forget all but the latest `keep` samples of the key, and its reference."""
        latest = list(self._samples.get(key, ()))[-keep:] if keep else []
        self._samples[key] = deque(latest, maxlen=self._capacity)
        self._references.pop(key, None)
        self._generations[key] = self.generation(key) + 1
        if len(latest) >= self._least:
            self._renew(key)

    def _renew(self, key: Key) -> None:
        self._references[key] = reference_of(self._samples[key])
        self._generations[key] = self.generation(key) + 1
