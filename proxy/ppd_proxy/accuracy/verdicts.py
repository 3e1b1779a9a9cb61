"""The state of every scope: green, amber, red or unknown, with its evidence.

    red      the detector reached its threshold, and fresh healthy samples show that the noise has not changed
    amber    the detector is on its way there, or something else is suspicious (`alarms`)
    green    the excess over the noise floor is below the tolerance, by the upper end of its interval
    unknown  none of these: too few samples, or no noise floor

A red scope stays red until samples taken after it turned red make it green, or a person resets it. The detectors of all
scopes together raise a false red on at most `false_alarms` of the days: each gets its share (Bonferroni), and the
products that start within a day weigh 1 in all.

Before red the noise is measured again (`wanted_noise`). If it has changed too (a new vLLM version on all engines), the
floor is started anew and everything is unknown until it stands: recalibration, not red.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from ppd_proxy.accuracy.evidence import SPACING, Detector, samples_to
from ppd_proxy.accuracy.intervals import Interval, difference
from ppd_proxy.accuracy.noise import Category, Judgement, Key, NoiseFloor, Outcome
from ppd_proxy.accuracy.scores import Statistics

Verdict = Literal["green", "amber", "red", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("green", "amber", "red", "unknown")
ALL = "all"
_DAY_S = 86400.0
_LEAST_PER_DAY = 500
_LEAST_SCOPES = 4
_AMBER_RATIO = 5.0
_SUSPICION_RATIO = 20.0
"""The detector's threshold over that of amber, and over that of asking for fresh noise."""
_NOISE_CHANGED, _NOISE_DOUBTED = 1000.0, 20.0
"""What the detector of the noise itself must reach for a new floor: alone, and when a scope is about to turn red."""
_WINDOW = 1000
_RECOVERY = 200
"""Latest samples by which a red scope can turn green: faults in 1 of 20 spare all 200 once in 30,000 times."""


class Tolerances(msgspec.Struct, frozen=True, kw_only=True):
    """`false_alarms`: share of days with any false red. `tolerance`: excess of bad answers that green rules out with
    `confidence`. `fresh_noise`: healthy samples to take before red."""

    false_alarms: float = 0.01
    tolerance: float = 0.05
    confidence: float = 0.95
    fresh_noise: int = 50


class Judged(NamedTuple):
    """One sample of a scope's window."""

    key: Key
    category: Category
    outcome: Outcome
    prompt_tokens: int
    is_same_text: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One scope. Shares are of its window: samples beyond the near threshold, and what the floor expects of it.
    `evidence` is the detector over its threshold (1: red). `more_samples` until the next certain verdict, None where no
    number of samples like these would bring one."""

    scope: str
    verdict: Verdict
    reason: str
    samples: int
    outcomes: Mapping[str, int]
    share_beyond_noise: float
    noise_share: float
    excess: Interval
    evidence: float
    more_samples: int | None


class _Scope:
    def __init__(self) -> None:
        self.detector = Detector()
        self.window: deque[Judged] = deque(maxlen=_WINDOW)
        self.is_red = False

    def restart(self, *, is_red: bool) -> None:
        self.detector.restart()
        self.window = deque(maxlen=_RECOVERY if is_red else _WINDOW)
        self.is_red = is_red


class Verdicts:
    """Feeds on healthy samples and judged ones. `now` is seconds on any clock that does not go back."""

    def __init__(self, floor: NoiseFloor, tolerances: Tolerances) -> None:
        self.floor = floor
        self._tolerances = tolerances
        self._scopes: dict[str, _Scope] = {ALL: _Scope()}
        self._noise: dict[Key, Detector] = {}
        self._fresh: Counter[Key] = Counter()
        self._hours: deque[tuple[int, int]] = deque(maxlen=25)
        self._alarms: dict[str, str] = {}
        self.recalibrations = 0

    # What comes in

    def add_noise(self, key: Key, statistics: Statistics) -> bool:
        """A healthy sample. Returns whether the key's reference was made, renewed, or dropped as the noise changed."""
        reference = self.floor.reference(key)
        if reference is not None:
            category = reference.judge(statistics, is_greedy=key.is_greedy).category
            detector = self._noise.setdefault(key, Detector())
            detector.add(key, reference.counts, category, weight=SPACING / _WINDOW)
            self._fresh[key] += 1
            if detector.value >= _NOISE_CHANGED:
                self._recalibrate(key, keep=detector.span)
                self.floor.add(key, statistics)
                return True
        is_new = self.floor.add(key, statistics)
        if is_new:
            self._restart_key(key)
        else:
            self._settle()
        return is_new or self.floor.reference(key) is not reference

    def add(
        self, key: Key, statistics: Statistics, *, prompt_tokens: int, scopes: Iterable[str], now: float
    ) -> Judgement | None:
        """Judge a live sample and charge it to its scopes; None where the key has no noise floor yet."""
        reference = self.floor.reference(key)
        if reference is None:
            return None
        judgement = reference.judge(statistics, is_greedy=key.is_greedy)
        weight = SPACING / max(_LEAST_PER_DAY, self._count_day(now))
        judged = Judged(
            key, judgement.category, judgement.outcome, prompt_tokens, statistics.first_difference is None
        )
        for name in dict.fromkeys((ALL, *scopes)):
            scope = self._scopes.setdefault(name, _Scope())
            scope.window.append(judged)
            scope.detector.add(key, reference.counts, judgement.category, weight=weight)
            self._step(scope)
        return judgement

    def raise_alarm(self, scope: str, why: str | None) -> None:
        """Make a scope amber for a reason from elsewhere, until it is called with None."""
        if why is None:
            self._alarms.pop(scope, None)
        else:
            self._scopes.setdefault(scope, _Scope())
            self._alarms[scope] = why

    def reset(self, scope: str | None = None) -> None:
        """Forget a scope's samples and verdict, or those of all scopes; the noise floor stays."""
        for name in [scope] if scope is not None else list(self._scopes):
            if name in self._scopes:
                self._scopes[name] = _Scope()
        self._fresh.clear()

    def forget(self, scope: str) -> None:
        """The scope is gone (an engine left)."""
        if scope != ALL:
            self._scopes.pop(scope, None)
            self._alarms.pop(scope, None)

    # What follows from it

    @property
    def threshold(self) -> float:
        """Of the detectors. The products alive weigh at most 1 before a day begins and 1 start within it: hence 2."""
        return 2 * max(_LEAST_SCOPES, len(self._scopes)) / self._tolerances.false_alarms

    def wanted_noise(self) -> tuple[Key, int] | None:
        """Which key needs how many fresh healthy samples now, because a scope is about to turn red."""
        for scope in self._scopes.values():
            if self._is_suspicious(scope):
                key = _worst_key(scope)
                missing = self._tolerances.fresh_noise - self._fresh[key] if key is not None else 0
                if key is not None and missing > 0:
                    return key, missing
        return None

    def _step(self, scope: _Scope) -> None:
        if not any(self._is_suspicious(each) for each in self._scopes.values()):
            self._fresh.clear()
        if scope.is_red:
            if self._excess(scope).high < self._tolerances.tolerance:
                scope.is_red = False
                scope.window = deque(scope.window, maxlen=_WINDOW)
            else:
                scope.detector.restart()
            return
        if scope.detector.value >= self.threshold:
            self._settle()

    def _settle(self) -> None:
        """Turn scopes red that have the evidence and whose noise was measured again."""
        for scope in list(self._scopes.values()):
            if scope.is_red or scope.detector.value < self.threshold:
                continue
            key = _worst_key(scope)
            if key is None or self._fresh[key] < self._tolerances.fresh_noise:
                continue
            noise = self._noise.get(key)
            if noise is not None and noise.value >= _NOISE_DOUBTED:
                self._recalibrate(key, keep=noise.span)
                return
            scope.restart(is_red=True)

    def _is_suspicious(self, scope: _Scope) -> bool:
        return not scope.is_red and scope.detector.value >= self.threshold / _SUSPICION_RATIO

    def _recalibrate(self, key: Key, *, keep: int) -> None:
        self.recalibrations += 1
        self.floor.restart(key, keep)
        self._restart_key(key)

    def _restart_key(self, key: Key) -> None:
        """What was judged by the key's old thresholds says nothing of the new ones."""
        self._noise.pop(key, None)
        del self._fresh[key]
        for scope in self._scopes.values():
            if any(judged.key == key for judged in scope.window):
                scope.restart(is_red=scope.is_red)

    def _count_day(self, now: float) -> int:
        hour = int(now // 3600)
        if self._hours and self._hours[-1][0] == hour:
            self._hours[-1] = (hour, self._hours[-1][1] + 1)
        else:
            self._hours.append((hour, 1))
        return sum(count for each, count in self._hours if each > hour - 24)

    # What is told of it

    def verdicts(self) -> dict[str, Verdict]:
        return {name: self._verdict(name, scope)[0] for name, scope in self._scopes.items()}

    def window(self, scope: str) -> tuple[Judged, ...]:
        """The latest samples of a scope, since it was last reset or turned red."""
        return tuple(self._scopes[scope].window) if scope in self._scopes else ()

    def reports(self) -> list[Report]:
        return [self._report(name, scope) for name, scope in self._scopes.items()]

    def _report(self, name: str, scope: _Scope) -> Report:
        verdict, reason = self._verdict(name, scope)
        beyond, total, noise_share, _ = self._shares(scope)
        counts: dict[Category, int] = {"within": total - beyond, "near": beyond, "far": 0}
        more: int | None = 0
        if verdict == "amber" and name not in self._alarms:
            more = samples_to(scope.detector.value, self.threshold, counts)
        elif verdict in ("unknown", "red"):
            more = self._more_for_green(scope)
        return Report(
            scope=name,
            verdict=verdict,
            reason=reason,
            samples=total,
            outcomes=dict(Counter(judged.outcome for judged in scope.window)),
            share_beyond_noise=beyond / total if total else 0.0,
            noise_share=noise_share,
            excess=self._excess(scope),
            evidence=scope.detector.value / self.threshold,
            more_samples=more,
        )

    def _verdict(self, name: str, scope: _Scope) -> tuple[Verdict, str]:
        value, threshold = scope.detector.value, self.threshold
        if scope.is_red:
            return "red", "more answers beyond the noise floor than a healthy engine gives"
        if value >= threshold:
            return "amber", "evidence for red; the noise is measured again first"
        if value >= threshold / _AMBER_RATIO:
            return "amber", "answers beyond the noise floor are piling up"
        if name in self._alarms:
            return "amber", self._alarms[name]
        if not scope.window:
            return "unknown", "no judged samples"
        if self._excess(scope).high < self._tolerances.tolerance:
            return "green", f"at most {self._tolerances.tolerance:.0%} of the answers are beyond the noise floor"
        return "unknown", "too few samples to rule out faults"

    def _shares(self, scope: _Scope) -> tuple[int, int, float, int]:
        """Samples beyond near, all, the share that the floor expects beyond, and of how many healthy samples."""
        beyond = sum(judged.category != "within" for judged in scope.window)
        expected, healthy = 0.0, 0
        keys = Counter(judged.key for judged in scope.window)
        for key, count in keys.items():
            reference = self.floor.reference(key)
            if reference is not None:
                expected += count * (1 - reference.counts[0] / sum(reference.counts))
                healthy += reference.samples
        return beyond, len(scope.window), expected / len(scope.window) if scope.window else 0.0, healthy

    def _excess(self, scope: _Scope) -> Interval:
        beyond, total, share, healthy = self._shares(scope)
        return difference(beyond, total, round(share * healthy), healthy, self._tolerances.confidence)

    def _more_for_green(self, scope: _Scope) -> int | None:
        """If from now on only as many are beyond as the floor expects."""
        beyond, total, share, healthy = self._shares(scope)
        if not healthy:
            return None
        for more in (math.ceil(1.3**power) for power in range(1, 40)):
            later = round(beyond + share * more)
            interval = difference(later, total + more, round(share * healthy), healthy, self._tolerances.confidence)
            if interval.high < self._tolerances.tolerance:
                return more
        return None


def _worst_key(scope: _Scope) -> Key | None:
    keys = Counter(judged.key for judged in scope.window if judged.category != "within")
    return keys.most_common(1)[0][0] if keys else None
