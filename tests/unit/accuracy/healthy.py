"""Samples of engines that do not exist: healthy ones with heavy-tailed noise, and faulty ones."""

from __future__ import annotations

import numpy as np

from ppd_accuracy.answers.scores import Scores, Statistics, summarize
from ppd_accuracy.verdicts.noise import NoiseKey, key_of

TOKENS = 64
KEY: NoiseKey = key_of("model", 300, "greedy")


class Source:
    """Seeded. `scale` multiplies the noise: 1 is healthy, 30 a damaged KV cache."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def sample(self, scale: float = 1.0) -> Statistics:
        random = self._random
        noise = random.standard_t(5, TOKENS) * 0.01 * scale * np.exp(0.3 * random.standard_normal())
        candidate = -random.exponential(0.5, TOKENS)
        margin = np.where(random.random(TOKENS) < 0.02, random.exponential(0.005, TOKENS) * scale, 0.0)
        rank = np.where(margin > 0, 2, 1)
        return summarize(Scores(candidate=candidate, baseline=candidate - noise, margin=margin, rank=rank))

    def chance(self) -> float:
        return float(self._random.random())


def scores(candidate: list[float], baseline: list[float], margin: list[float] | None = None) -> Scores:
    """Scores by hand; a margin above 0 makes the token the baseline's second choice."""
    margins = np.array(margin if margin is not None else [0.0] * len(candidate))
    ranks = np.where(margins > 0, 2, 1).astype(np.int64)
    return Scores(candidate=np.array(candidate), baseline=np.array(baseline), margin=margins, rank=ranks)
