"""What an engine counted of its drafts lately."""

from __future__ import annotations

from collections import deque

from ppd_core.fleet.gains import is_restarted
from ppd_wire.metrics.scraped import EngineFigures
from ppd_wire.metrics.spec_counters import SpecCounters

WINDOW_S = 300.0


class DraftWindow:
    """One engine's counters: the newest that are `WINDOW_S` old or older, and all after them."""

    __slots__ = ("_counted", "_last", "latest")

    def __init__(self) -> None:
        self.latest: SpecCounters | None = None
        """None when the newest attempt failed: what the engine told before must not look current."""
        self._last: EngineFigures | None = None
        self._counted: deque[tuple[float, SpecCounters]] = deque()

    def take(self, figures: EngineFigures, now: float) -> None:
        """One reading, UNKNOWN if it failed; `now` is monotonic seconds."""
        self.latest = figures.spec
        if figures.spec is not None:
            if self._last is not None and is_restarted(self._last, figures):
                # The window begins anew with the engine's new life: it may draft with other settings.
                self._counted.clear()
                self._counted.append((now, SpecCounters()))
            self._last = figures
            self._counted.append((now, figures.spec))
        while len(self._counted) > 1 and self._counted[1][0] <= now - WINDOW_S:
            self._counted.popleft()

    def gain(self) -> SpecCounters | None:
        """What was counted within the window; None before the second reading."""
        if len(self._counted) < 2:
            return None
        return self._counted[-1][1].since(self._counted[0][1])
