"""The canary: names a decode engine whose drafts are accepted less often than a baseline's.

It may be asked at any time and looks once a window: every look is another chance of a false alarm, and looks at windows
that overlap are looks all the same. Pure; time comes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ppd_accuracy.verdicts.speculation import drop
from ppd_wire.metrics.spec_counters import SpecCounters

_DAY_S = 86400.0


class Canary:
    """`gain` gives what an engine counted in the last `window_s`. `false_alarms` is the share of days with any false
    alarm: each comparison of each look of a day gets as much of it (Bonferroni)."""

    def __init__(
        self, gain: Callable[[str], SpecCounters | None], *, window_s: float, false_alarms: float
    ) -> None:
        self._gain = gain
        self._window_s = window_s
        self._false_alarms = false_alarms
        self._due_at = -math.inf
        self._finding: str | None = None

    def look(self, decodes: Sequence[str], baselines: Sequence[str], now: float) -> str | None:
        """What the latest look found, in a sentence; None: nothing. `now` is seconds on any clock that does not go
        back."""
        if now >= self._due_at:
            self._due_at = now + self._window_s
            self._finding = self._compare(decodes, baselines)
        return self._finding

    def _compare(self, decodes: Sequence[str], baselines: Sequence[str]) -> str | None:
        comparisons = len(decodes) * len(baselines)
        for baseline in baselines:
            expected = self._gain(baseline)
            for decode in decodes:
                counted = self._gain(decode)
                if expected is None or counted is None:
                    continue
                alpha = self._false_alarms * self._window_s / (_DAY_S * comparisons)
                if drop(counted, expected, alpha).verdict == "dropped":
                    return f"{decode} accepts fewer drafts than the baseline: look at draft model and KV of that engine"
        return None
