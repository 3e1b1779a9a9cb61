"""The metrics of accuracy shadowing, on an injected registry.

Made only where samples are taken, so that without them there is no series that says "all is well".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from ppd_accuracy.verdicts.verdicts import VERDICTS
from ppd_proxy.telemetry import instruments_shadow as instruments
from ppd_proxy.telemetry.cells import Counters, Histograms, Live, gauge_family
from ppd_proxy.telemetry.labels import Bounded

_MAX_WORDS = 32
_ALL = "all"
_UNKNOWN = "unknown"
_WORST_DELTA = 100.0
"""Beyond any difference of log probabilities that matters. A sum of infinity or NaN would never be a number again."""


class ShadowMetrics:
    """Counts what the shadow and the guard report.

    `verdicts` gives the verdict in force by scope, read when metrics are; the scope `all` is `unknown` where it says
    nothing. `guard_actions` are the kinds of action there are: they are shown as 0 from the start, because Prometheus
    cannot see the increase of a series that begins with 1.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        verdicts: Callable[[], Mapping[str, str]],
        guard_actions: Iterable[str] = (),
    ) -> None:
        self._samples = Counters(registry, instruments.SAMPLES)
        self._dropped = Counters(registry, instruments.DROPPED)
        self._accuracy = Histograms(registry, instruments.TOKEN_ACCURACY)
        self._delta = Histograms(registry, instruments.LOGPROB_DELTA)
        self._divergence = Histograms(registry, instruments.FIRST_DIVERGENCE)
        self._length = Histograms(registry, instruments.LENGTH_DELTA)
        self._noise = Histograms(registry, instruments.NOISE_DELTA)
        self._actions = Counters(registry, instruments.GUARD_ACTIONS)
        self._outcome, self._reason, self._action = Bounded(_MAX_WORDS), Bounded(_MAX_WORDS), Bounded(_MAX_WORDS)
        for kind in guard_actions:
            self._actions.add((self._action(kind),), 0)
        Live(registry, lambda: [_verdict_family(verdicts())])

    def sampled(self, route: str, outcome: str) -> None:
        """A sample was judged. `outcome` is a fixed word."""
        self._samples.add((route, self._outcome(outcome)))

    def dropped(self, reason: str) -> None:
        """A sample was not judged, or not written. `reason` is a fixed word."""
        self._dropped.add((self._reason(reason),))

    def judged(
        self,
        route: str,
        token_accuracy: float | None = None,
        max_delta: float | None = None,
        first_divergence: int | None = None,
        length_delta: int | None = None,
    ) -> None:
        """The figures of one judged sample; None where its method does not tell. `length_delta` may be negative."""
        if token_accuracy is not None:
            self._accuracy.observe((route,), token_accuracy)
        if max_delta is not None:
            self._delta.observe((route,), _finite(max_delta))
        if first_divergence is not None:
            self._divergence.observe((route,), first_divergence)
        if length_delta is not None:
            self._length.observe((route,), abs(length_delta))

    def noise(self, max_delta: float) -> None:
        """The baseline was compared with itself."""
        self._noise.observe((), _finite(max_delta))

    def guard_acted(self, kind: str) -> None:
        """The guard acted, undid something, or says what it would do."""
        self._actions.add((self._action(kind),))


def _finite(delta: float) -> float:
    return min(delta, _WORST_DELTA) if math.isfinite(delta) else _WORST_DELTA


def _verdict_family(in_force: Mapping[str, str]) -> Metric:
    scopes = {_ALL: _UNKNOWN, **in_force}.items()
    return gauge_family(
        instruments.VERDICT, (((scope, each), each == verdict) for scope, verdict in scopes for each in VERDICTS)
    )
