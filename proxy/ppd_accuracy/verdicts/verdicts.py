"""The state of every scope: green, amber, red or unknown, with its evidence.

    red      the detector reached its threshold, and fresh healthy samples show that the noise has not changed
    amber    the detector is on its way there, answers drift (more are near than the floor expects, whatever is beyond),
             or something else is suspicious (`alarms`)
    green    the excess over the noise floor is below the tolerance, by the upper end of its interval
    unknown  none of these: too few samples, or no noise floor

A red scope stays red until a whole block of samples taken after it turned red, of the route that made it red, has no
more rare and far ones than the floor's share and a standard deviation (three in four healthy blocks have none at all),
or a person resets it. The detectors
of all scopes together raise a false red on at most `false_alarms` of the days: each gets its share (Bonferroni).

Before red the noise is measured again (`wanted_noise`), on the suspicious prompts themselves first. If it has changed
too (a new vLLM version on all engines, another kind of text), the floor is started anew and everything is unknown until
it stands: recalibration, not red.

Samples with the same prompt and answer are no evidence of their own: only the first counts for a scope.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Literal, get_args

import msgspec

from ppd_accuracy.answers.scores import Statistics
from ppd_accuracy.statistics.intervals import Interval, difference
from ppd_accuracy.verdicts.evidence import Detector, samples_to
from ppd_accuracy.verdicts.noise import BaselineNoise, Category, Judgement, NoiseKey, Reference
from ppd_accuracy.verdicts.scope import REMEMBERED, ROUTES, Judged, Scope

Verdict = Literal["green", "amber", "red", "unknown"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ALL = "all"
_DAY_S = 86400.0
_LEAST_SCOPES = 4
_SUSPICION_RATIO = 20.0
"""The detector's threshold over that of amber, which asks for fresh noise, too."""
_NOISE_CHANGED, _NOISE_DOUBTED = 100.0, 1.0
"""What the detector of the noise itself must reach for a new floor: alone, and when a scope is about to turn red."""
_FRESH_S = 600.0
_RECOVERY = 200
"""Samples of the block by which a red scope can turn green."""


class Tolerances(msgspec.Struct, frozen=True, kw_only=True):
    """`false_alarms`: share of days with any false red. `tolerance`: excess of bad answers that green rules out with
    `confidence`. `fresh_noise`: healthy samples to take before red."""

    false_alarms: float = 0.01
    tolerance: float = 0.05
    confidence: float = 0.95
    fresh_noise: int = 50


class ScopeReport(msgspec.Struct, frozen=True, kw_only=True):
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
    entropy_change: float | None
    """Mean of the window's, nats per token, candidate minus baseline; None where no likeliest tokens were asked for."""


class Verdicts:
    """Feeds on healthy samples and judged ones. `now` is seconds on any clock that does not go back."""

    def __init__(self, noise: BaselineNoise, tolerances: Tolerances) -> None:
        self.noise = noise
        self._tolerances = tolerances
        self._scopes: dict[str, Scope] = {ALL: Scope(ALL)}
        self._noise_detectors: dict[NoiseKey, Detector] = {}
        self._fresh: dict[NoiseKey, deque[float]] = {}
        self._alarms: dict[str, str] = {}
        self._now = 0.0
        self.recalibrations = 0

    # What comes in

    def add_noise(self, key: NoiseKey, statistics: Statistics, made: Reference | None = None) -> bool:
        """A healthy sample; `made` is as `BaselineNoise.add` takes it. Returns whether the key's reference was made,
        renewed, or dropped as the noise changed."""
        reference = self.noise.reference(key)
        if reference is not None:
            category = reference.judge(statistics, is_greedy=key.is_greedy).category
            detector = self._noise_detectors.setdefault(key, Detector())
            detector.add(key, reference.counts, category, day=int(self._now // _DAY_S))
            self._fresh.setdefault(key, deque(maxlen=REMEMBERED)).append(self._now)
            if detector.value >= _NOISE_CHANGED:
                self._recalibrate(key, keep=detector.span)
                self.noise.add(key, statistics, made)
                return True
        is_new = self.noise.add(key, statistics, made)
        if is_new:
            for scope in self._scopes.values():
                scope.detector.renew(key)
            self._noise_detectors.pop(key, None)
        else:
            self._settle()
        return is_new or self.noise.reference(key) is not reference

    def add(
        self,
        key: NoiseKey,
        statistics: Statistics,
        *,
        prompt_tokens: int,
        scopes: Iterable[str],
        now: float,
        identity: bytes | None = None,
        entropy_change: float | None = None,
    ) -> Judgement | None:
        """Judge a live sample and charge it to its scopes; None where the key has no noise floor yet. `identity` is a
        digest of prompt and answer."""
        self._now = now
        reference = self.noise.reference(key)
        if reference is None:
            return None
        judgement = reference.judge(statistics, is_greedy=key.is_greedy)
        is_same_text = statistics.first_difference is None
        judged = Judged(key, judgement.category, judgement.outcome, prompt_tokens, is_same_text, entropy_change)
        names = dict.fromkeys((ALL, *scopes))
        route = next((name for name in names if name in ROUTES), None)
        for name in names:
            scope = self._scopes.setdefault(name, Scope(name))
            if identity is not None and scope.is_known(identity):
                continue
            if scope.is_red and scope.accused not in (None, route):
                continue
            scope.append(judged)
            scope.detector.add(key, reference.counts, judgement.category, day=int(now // _DAY_S), part=route)
            self._step(scope)
        return judgement

    def raise_alarm(self, scope: str, why: str | None) -> None:
        """Make a scope amber for a reason from elsewhere, until it is called with None."""
        if why is None:
            self._alarms.pop(scope, None)
        else:
            self._scopes.setdefault(scope, Scope(scope))
            self._alarms[scope] = why

    def reset(self, scope: str | None = None) -> None:
        """Forget a scope's samples and verdict, or those of all scopes; the noise floor stays."""
        for name in [scope] if scope is not None else list(self._scopes):
            if name in self._scopes:
                self._scopes[name] = Scope(name)

    def forget(self, scope: str) -> None:
        """The scope is gone (an engine left)."""
        if scope != ALL:
            self._scopes.pop(scope, None)
            self._alarms.pop(scope, None)

    # What follows from it

    @property
    def threshold(self) -> float:
        """Of the detectors."""
        return max(_LEAST_SCOPES, len(self._scopes)) / self._tolerances.false_alarms

    def wanted_noise(self) -> tuple[NoiseKey, int] | None:
        """Which key needs how many fresh healthy samples now, because a scope is about to turn red."""
        for scope in self._scopes.values():
            if self._is_suspicious(scope):
                key = scope.worst_key
                missing = self._tolerances.fresh_noise - self._count_fresh(key) if key is not None else 0
                if key is not None and missing > 0:
                    return key, missing
        return None

    def _count_fresh(self, key: NoiseKey) -> int:
        """Healthy samples of the last minutes; older ones are forgotten."""
        fresh = self._fresh.get(key, deque())
        while fresh and fresh[0] <= self._now - _FRESH_S:
            fresh.popleft()
        return len(fresh)

    def _step(self, scope: Scope) -> None:
        if scope.is_red:
            scope.detector.restart()
            if len(scope.window) >= _RECOVERY:
                likely = self._likely_rejected(scope)
                if scope.rejected > likely + math.sqrt(likely):
                    scope.restart(is_red=True)
                else:
                    scope.is_red = False
        elif scope.detector.value >= self.threshold:
            self._settle()

    def _settle(self) -> None:
        """Turn scopes red that have the evidence and whose noise was measured again."""
        for scope in list(self._scopes.values()):
            if scope.is_red or scope.detector.value < self.threshold:
                continue
            key = scope.worst_key
            if key is None or self._count_fresh(key) < self._tolerances.fresh_noise:
                continue
            detector = self._noise_detectors.get(key)
            if detector is not None and detector.value >= _NOISE_DOUBTED:
                self._recalibrate(key, keep=detector.span)
                return
            scope.accusing, scope.accused = tuple(scope.window), scope.detector.part
            scope.restart(is_red=True)

    def _is_suspicious(self, scope: Scope) -> bool:
        return not scope.is_red and scope.detector.value >= self.threshold / _SUSPICION_RATIO

    def _recalibrate(self, key: NoiseKey, *, keep: int) -> None:
        """What was judged by the key's old thresholds says nothing of the new ones."""
        self.recalibrations += 1
        self.noise.restart(key, keep)
        self._noise_detectors.pop(key, None)
        self._fresh.pop(key, None)
        for scope in self._scopes.values():
            if scope.keys[key]:
                scope.restart(is_red=scope.is_red)

    # What is told of it

    def verdicts(self) -> dict[str, Verdict]:
        return {name: self._verdict(name, scope)[0] for name, scope in self._scopes.items()}

    @property
    def red(self) -> list[str]:
        return [name for name, scope in self._scopes.items() if scope.is_red]

    def window(self, scope: str) -> tuple[Judged, ...]:
        """The latest samples of a scope; of a red one those that turned it red."""
        if scope not in self._scopes:
            return ()
        state = self._scopes[scope]
        return state.accusing if state.is_red else tuple(state.window)

    def reports(self) -> list[ScopeReport]:
        return [self._report(name, scope) for name, scope in self._scopes.items()]

    def report(self, scope: str) -> ScopeReport | None:
        return self._report(scope, self._scopes[scope]) if scope in self._scopes else None

    def _report(self, name: str, scope: Scope) -> ScopeReport:
        verdict, reason = self._verdict(name, scope)
        beyond, total, noise_share, _ = self._shares(scope)
        counts: dict[Category, int] = {"within": total - scope.rejected, "far": scope.rejected}
        more: int | None = 0
        if verdict == "amber" and name not in self._alarms:
            more = samples_to(scope.detector.value, self.threshold, counts)
        elif verdict == "unknown":
            more = self._more_for_green(scope)
        elif verdict == "red":
            more = _RECOVERY - total
        changes = [judged.entropy_change for judged in scope.window if judged.entropy_change is not None]
        return ScopeReport(
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
            entropy_change=fmean(changes) if changes else None,
        )

    def _verdict(self, name: str, scope: Scope) -> tuple[Verdict, str]:
        value, threshold = scope.detector.value, self.threshold
        if scope.is_red:
            return "red", "more answers beyond the noise floor than a healthy engine gives"
        if value >= threshold:
            return "amber", "evidence for red; the noise is measured again first"
        if value >= threshold / _SUSPICION_RATIO:
            return "amber", "answers beyond the noise floor are piling up"
        if scope.detector.drift >= threshold:
            return "amber", "answers drift: more of them are near the end of the noise than a healthy engine gives"
        if name in self._alarms:
            return "amber", self._alarms[name]
        if not scope.window:
            return "unknown", "no judged samples"
        if self._excess(scope).high < self._tolerances.tolerance:
            return "green", f"at most {self._tolerances.tolerance:.0%} of the answers are beyond the noise floor"
        return "unknown", "too few samples to rule out faults"

    def _shares(self, scope: Scope) -> tuple[int, int, float, int]:
        """Samples beyond near, all, the share that the floor expects beyond, and of how many healthy samples."""
        expected, healthy, total = 0.0, 0, len(scope.window)
        for key, count in scope.keys.items():
            reference = self.noise.reference(key)
            if reference is not None and count:
                expected += count * (1 - reference.counts[0] / sum(reference.counts))
                healthy += reference.samples
        return scope.beyond, total, expected / total if total else 0.0, healthy

    def _likely_rejected(self, scope: Scope) -> float:
        """How many samples of the window the floor expects to be rare or far."""
        likely = 0.0
        for key, count in scope.keys.items():
            reference = self.noise.reference(key)
            if reference is not None:
                likely += count * sum(reference.counts[2:]) / sum(reference.counts)
        return likely

    def _excess(self, scope: Scope) -> Interval:
        beyond, total, share, healthy = self._shares(scope)
        return difference(beyond, total, round(share * healthy), healthy, self._tolerances.confidence)

    def _more_for_green(self, scope: Scope) -> int | None:
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
