"""The signs by which an engine is judged: signals that must fail or succeed several times, and how its answers ended.

Owns the counting; what follows from it for the engine's state is `fleet.py`'s. Reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

REFUSAL_WEIGHT = 2
"""A refused connection counts as much as this many probes without an answer in time: a refusal says that nobody is
there, silence may only mean that the engine is busy."""
FAILED_RUN = 5
"""So many answers in a row must have failed before an engine is set aside."""
TRIAL_INTERVAL_S = 2.0
"""How often an engine that was set aside gets one request, to see whether it answers again."""


@dataclass(slots=True)
class Signal:
    """One sign of life."""

    is_good: bool = True
    goods_needed: int = 1
    goods: int = 0
    misses: int = 0
    lates: int = 0
    """Probes in a row, as far as none was good, that got no answer in time."""

    def succeed(self) -> None:
        self.misses = self.lates = 0
        self.goods += 1
        self.is_good = self.is_good or self.goods >= self.goods_needed

    def miss(self, *, missed_limit: int, good_limit: int) -> None:
        """Refused, or answered that it is not well."""
        self.goods = 0
        self.misses += 1
        if self.is_good and self.misses >= missed_limit:
            self.lose(good_limit)

    def be_late(self, *, missed_limit: int, good_limit: int, is_spared: bool) -> None:
        """No answer in time. `is_spared`: lateness alone must not turn the signal bad."""
        self.goods = 0
        self.lates += 1
        weight = REFUSAL_WEIGHT * self.misses + self.lates
        if self.is_good and not is_spared and weight >= REFUSAL_WEIGHT * missed_limit:
            self.lose(good_limit)

    def lose(self, good_limit: int) -> None:
        self.is_good, self.goods, self.goods_needed = False, 0, good_limit
