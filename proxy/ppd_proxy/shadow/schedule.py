"""What the shadow checks or measures next: samples of the traffic, and the baseline's own noise.

Owns the two piles and what of them is due. Asks no engine and no clock: a worker takes a job, does it, and says what
came of it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping

from ppd_accuracy.verdicts.noise import NoiseKey
from ppd_proxy.shadow.sample import Sample
from ppd_proxy.shadow.seeds import NoiseRequest, Seeds

NOISE_PAUSE_S = 5.0
"""After a noise measurement that failed: a baseline that is down would be asked without end."""
_BATCH = 50
"""Calibration alternates between so many noise samples one at a time and so many at once: noise depends on the load."""
Job = Sample | NoiseRequest


class Schedule:
    """`queue` is how many samples may wait."""

    def __init__(self, seeds: Seeds, *, queue: int) -> None:
        self._seeds = seeds
        self._queue = queue
        self._samples: deque[Sample] = deque()
        self._calibrating: Counter[NoiseKey] = Counter()
        self._noise_due = 0.0
        self._no_noise_before = -math.inf
        self._last_key: NoiseKey | None = None

    @property
    def is_full(self) -> bool:
        return len(self._samples) >= self._queue

    @property
    def waiting(self) -> int:
        return len(self._samples)

    @property
    def calibrating(self) -> Mapping[str, int]:
        """How many ordered noise samples are to come, by key."""
        return {key.label: count for key, count in self._calibrating.items() if count > 0}

    def add(self, sample: Sample) -> None:
        self._samples.append(sample)

    def calibrate(self, count: int) -> dict[str, int]:
        """Order `count` noise samples for every key that samples are known of; what was ordered, by key."""
        for key in self._seeds.keys:
            self._calibrating[key] = count
        return {key.label: count for key in self._seeds.keys}

    def checked(self, key: NoiseKey, sample: Sample, noise_share: float) -> None:
        """A sample that can be scored makes the noise of its key due, `noise_share` of a measurement, and is a seed."""
        self._seeds.add(key, sample)
        self._last_key = key
        self._noise_due += noise_share

    def doubt(self, key: NoiseKey, sample: Sample) -> None:
        """A sample beyond the noise: whether the baseline alone is as far on its prompt is to be known first."""
        self._seeds.suspect(key, sample)

    def noise_failed(self, noise: NoiseRequest, now: float) -> None:
        self._no_noise_before = now + NOISE_PAUSE_S
        if noise.key in self._calibrating:
            self._calibrating[noise.key] += 1

    def take(self, worker: int, turn: int, *, now: float, suspicious: NoiseKey | None) -> Job | None:
        """The next job of a worker, None while nothing is to be done. `turn` counts its jobs.

        Samples first, but every second job is noise while some is due; every job while nothing else waits.
        `suspicious`: the key whose noise must be fresh, because a scope is about to turn red.
        """
        if (turn % 2 == 0 or not self._samples) and now >= self._no_noise_before:
            noise = self._take_noise(worker, suspicious)
            if noise is not None:
                return noise
        return self._samples.popleft() if self._samples else None

    def _take_noise(self, worker: int, suspicious: NoiseKey | None) -> NoiseRequest | None:
        if suspicious is not None:
            return self._seeds.take(suspicious, is_doubted=True)
        for key, count in list(self._calibrating.items()):
            if count <= 0 or not self._seeds.count(key):
                del self._calibrating[key]
            elif worker == 0 or count // _BATCH % 2 == 0:
                self._calibrating[key] -= 1
                return self._seeds.take(key)
        if self._last_key is not None and self._noise_due >= 1:
            self._noise_due -= 1
            return self._seeds.take(self._last_key)
        return None
