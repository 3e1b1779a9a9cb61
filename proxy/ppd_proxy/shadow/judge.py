"""What a finished check means: judged against the noise floor, or kept until there is one.

Asks no engine and no clock, writes and counts nothing: what comes of a check is a value.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from ppd_accuracy.verdicts.noise import Judgement, NoiseKey, key_of
from ppd_accuracy.verdicts.rows import SampleRow
from ppd_accuracy.verdicts.verdicts import Verdicts
from ppd_proxy.shadow.check import Check, row_of
from ppd_proxy.shadow.sample import Sample, identity_of, scopes_of
from ppd_wire.requests.choosing import is_repeatable

Method = Literal["score", "replay"]
_PARKED = 500
_LOSSES = frozenset({"baseline_down", "baseline_slow", "baseline_error"})
"""Failures that say nothing of the sample."""


class Concluded(NamedTuple):
    """A check with its judgement, and what the journal keeps of it."""

    check: Check
    key: NoiseKey
    judgement: Judgement
    row: SampleRow

    @property
    def figures(self) -> dict[str, Any]:
        """What the metrics show of it: `token_accuracy`, `max_delta` in nats, and of a replay its lengths."""
        statistics, difference = self.check.statistics, self.check.difference
        return {
            "token_accuracy": statistics.token_accuracy,
            "max_delta": statistics.max_delta if statistics.is_finite else math.inf,
            "first_divergence": statistics.first_difference,
            "length_delta": None if difference is None else difference.length_delta,
        }


class Judge:
    """Checks wait here for the noise floor of their kind, the newest 500 of each."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self._parked: dict[NoiseKey, deque[Check]] = {}

    @property
    def parked(self) -> int:
        return sum(len(each) for each in self._parked.values())

    def has_floor(self, key: NoiseKey) -> bool:
        return self.verdicts.noise.reference(key) is not None

    def park(self, check: Check, key: NoiseKey) -> bool:
        """Keeps it until its noise floor stands. Whether another one had to go for it."""
        parked = self._parked.setdefault(key, deque(maxlen=_PARKED))
        is_full = len(parked) == _PARKED
        parked.append(check)
        return is_full

    def released(self, key: NoiseKey) -> Iterator[Check]:
        """What waited for this noise floor, oldest first."""
        parked = self._parked.pop(key, deque())
        while parked:
            yield parked.popleft()

    def judge(self, check: Check, key: NoiseKey, red_in_use: Iterable[str], now: float) -> Concluded | None:
        """None where the noise floor is gone again. `red_in_use`: scopes that are red though nobody took them out of
        use; `now` in monotonic seconds."""
        sample = check.sample
        judgement = self.verdicts.add(
            key,
            check.statistics,
            prompt_tokens=sample.prompt_tokens,
            scopes=scopes_of(sample, red_in_use),
            now=now,
            identity=identity_of(sample),
            entropy_change=None if check.spread is None else check.spread.entropy_change,
        )
        if judgement is None:
            return None
        return Concluded(check, key, judgement, row_of(check, judgement, self.verdicts.noise.reference(key)))


def noise_key(sample: Sample) -> NoiseKey:
    """Which noise floor it is held against."""
    return key_of(sample.model, sample.prompt_tokens, sample.sampling)


def method_of(sample: Sample, method: str) -> Method | None:
    """How it is checked where `method` is wanted: a replay where it cannot be scored, None where neither can be."""
    if method == "score" and sample.is_scorable and sample.candidate.prompt_token_ids is not None:
        return "score"
    return "replay" if is_repeatable(sample.fields) else None


def says_nothing(reason: str) -> bool:
    """Whether a check that failed for this reason says nothing of its sample; all others make it `unscorable`."""
    return reason in _LOSSES
