"""A sequential test: are there more samples beyond the noise floor than a healthy engine gives?

Null hypothesis: the samples are exchangeable with the healthy ones that made the reference. Then the chance that the
next one falls into a category, given all before it, is that of an urn which holds the reference's counts and every
sample so far (Polya's urn; no estimate of the healthy rate enters, its uncertainty is in the counts). A likelihood
ratio against that chance has expectation 1 at each step, so its running product E is a test martingale: it reaches 1/a
with a probability of at most a, at whatever moment one looks (Ville's inequality).

Two tests look at the same samples. `value`, which can turn a scope red, takes near answers for within: only what is
beyond 999 of 1000 healthy answers speaks. `drift` takes every category. Healthy traffic that is unlike the noise
floor's (contexts that grow, KV that was decoded instead of prefilled) has several times as many near answers and no
more that are rare or far: on a real vLLM, conversations of up to 40 turns had 11 % instead of 2 %, and none.

Alternatives: a share of the answers is faulty, and these are mostly far, mixed, or mostly near; E is the mean over
shares and mixtures. A fault may begin at any time, so a new product starts every `SPACING` samples, with a weight. The
weights of a day's products add up to at most 1, however many samples it has, and their weighted sum is a martingale,
too: it passes c with a probability of at most 1/c. The detector is the largest of the days' sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ppd_accuracy.verdicts.noise import CATEGORIES, Category, Counts, NoiseKey

SPACING = 25
STARTS = 80
"""Products kept, the latest: 2,000 samples of memory."""
_HARMONIC = 12.0
"""At least the sum of 1/n over a day's products: up to 90,000 of them, 2 million samples."""
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SHAPES = ((0.02, 0.03, 0.02, 0.93), (0.1, 0.2, 0.2, 0.5), (0.1, 0.3, 0.5, 0.1), (0.1, 0.65, 0.2, 0.05))


@dataclass(slots=True)
class _Seen:
    """Samples of one key: how many of each category in all, and up to each start."""

    total: np.ndarray
    before: np.ndarray


class Detector:
    """`value` is the evidence, to be held against a bound c that a healthy engine passes on at most 1/c of the days."""

    def __init__(self, *, knows_near: bool = True) -> None:
        self._alternatives = np.array([(share, *shape) for share in _SHARES for shape in _SHAPES])
        self._knows_near = knows_near
        if not knows_near:
            self._alternatives[:, 1] += self._alternatives[:, 2]
        self._day = -1
        self._started_today = 0
        self._logs = np.zeros((STARTS, len(self._alternatives)))
        self._weights = np.zeros(STARTS)
        self._lengths = np.zeros(STARTS, dtype=np.int64)
        self._days = np.zeros(STARTS, dtype=np.int64)
        """On which each product started."""
        self._same_day = self._days
        """Numbers from 0, the same for products of one day."""
        self.restart()

    def restart(self) -> None:
        """Forget the samples, not how many products started today."""
        self._used = 0
        """How many products there are: the first of each array."""
        self._seen: dict[NoiseKey, _Seen] = {}
        self._next = 0
        self.count = 0
        self.value = 0.0
        self.span = 0
        """Samples in the product that weighs most: since about when something is wrong."""

    def renew(self, key: NoiseKey) -> None:
        """The key's reference is a new one: its urn begins with that."""
        self._seen.pop(key, None)

    def add(self, key: NoiseKey, counts: Counts, category: Category, *, day: int) -> float:
        """One more sample, by the reference counts of its key, on a day (any number that grows). Returns `value`."""
        if self.count % SPACING == 0:
            self._start(day)
        self.count += 1
        used = slice(self._used)
        self._lengths[used] += 1
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen(np.zeros(len(counts)), np.zeros((STARTS, len(counts))))
        place = CATEGORIES.index(category)
        healthy = np.array(counts, dtype=float)
        if not self._knows_near:
            place = 0 if category == "near" else place
            healthy[0], healthy[1] = healthy[0] + healthy[1], 0.0
        urns = healthy + seen.total - seen.before[used]
        expected = urns[:, place] / urns.sum(axis=1)
        share, shape = self._alternatives[:, 0], self._alternatives[:, 1 + place]
        supposed = (1 - share) * healthy[place] / healthy.sum() + share * shape
        logs = self._logs[used]
        logs += np.log(supposed)[None, :] - np.log(expected)[:, None]
        seen.total[place] += 1
        products = self._weights[used] * np.exp(np.minimum(logs, 600.0)).mean(axis=1)
        sums = np.bincount(self._same_day, products)
        strongest = int(sums.argmax())
        best = int(np.where(self._same_day == strongest, products, -1.0).argmax())
        self.value, self.span = float(sums[strongest]), int(self._lengths[best])
        return self.value

    def _start(self, day: int) -> None:
        if day != self._day:
            self._day, self._started_today = day, 0
        self._started_today += 1
        slot = self._next
        self._next = (slot + 1) % STARTS
        self._logs[slot] = 0.0
        self._weights[slot] = 1 / (_HARMONIC * self._started_today)
        self._lengths[slot] = 0
        self._days[slot] = day
        self._used = max(self._used, slot + 1)
        self._same_day = np.unique(self._days[: self._used], return_inverse=True)[1]
        for seen in self._seen.values():
            seen.before[slot] = seen.total


class Evidence:
    """A scope's detectors: one of each of its `parts` (the routes), and one of all samples that are of none. A fault of
    one part alone would drown among the samples of the others, as pd turns do where most turns are direct.

    `value` is the largest of their values times their weights, which add up to 1: by the union bound it is held
    against the same bound as one detector's; so is `drift`, of detectors that know near answers. `parts` has the
    weights; what is left is that of the rest.
    """

    def __init__(self, parts: Mapping[str, float] = MappingProxyType({})) -> None:
        self._weights: dict[str | None, float] = {None: 1.0 - sum(parts.values())}
        self._weights.update(parts)
        self._detectors = {part: Detector(knows_near=False) for part in self._weights}
        self._drifts = {part: Detector() for part in self._weights}
        self.restart()

    def restart(self) -> None:
        """Forget the samples, not how many products started today."""
        for detector in (*self._detectors.values(), *self._drifts.values()):
            detector.restart()
        self.value = self.drift = 0.0
        self.span = 0
        """Samples in the product that weighs most: since about when something is wrong."""
        self.part: str | None = None
        """Whose samples they are."""

    def renew(self, key: NoiseKey) -> None:
        """The key's reference is a new one: its urn begins with that."""
        for detector in (*self._detectors.values(), *self._drifts.values()):
            detector.renew(key)

    def add(
        self, key: NoiseKey, counts: Counts, category: Category, *, day: int, part: str | None = None
    ) -> float:
        """One more sample, of a part or of the rest. Returns `value`."""
        known = part if part in self._weights else None
        self._detectors[known].add(key, counts, category, day=day)
        self._drifts[known].add(key, counts, category, day=day)
        self.drift = max(weight * self._drifts[each].value for each, weight in self._weights.items())
        self.part = max(self._weights, key=self._evidence_of)
        self.value, self.span = self._evidence_of(self.part), self._detectors[self.part].span
        return self.value

    def _evidence_of(self, part: str | None) -> float:
        return self._weights[part] * self._detectors[part].value


def samples_to(value: float, threshold: float, counts: Mapping[Category, int]) -> int | None:
    """How many more samples, with the categories found so far, would lift a detector to the threshold; None: none."""
    total = sum(counts.values())
    beyond = total - counts["within"]
    if value <= 0 or not beyond:
        return None
    growth = beyond / total * math.log(max(2.0, total / beyond))
    return max(1, math.ceil(math.log(threshold / value) / growth)) if value < threshold else 0
