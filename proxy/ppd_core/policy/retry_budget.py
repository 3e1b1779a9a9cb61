"""How many requests may be tried again, over all: failing engines must not have their load doubled by retries.

Pure: the caller brings `now` (monotonic seconds), and asks before each retry.
"""

from __future__ import annotations

WINDOW_S = 10
SHARE = 0.2
"""Of the requests of the window, so many may be tried again ..."""
PER_SECOND = 10
"""... and so many more for each second of it: a proxy with few requests can still retry every one of them."""


class RetryBudget:
    """Counts requests and retries of the last `WINDOW_S` seconds, in slots of one second."""

    __slots__ = ("_requested", "_requests", "_retried", "_retries", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._requests = [0] * WINDOW_S
        self._retries = [0] * WINDOW_S
        self._requested = self._retried = 0

    def note_request(self, now: float) -> None:
        """A request that is not a retry."""
        second = int(now)
        if second != self._second:
            self._forget(second)
        self._requests[second % WINDOW_S] += 1
        self._requested += 1

    def take(self, now: float) -> bool:
        """Whether one more retry is allowed; if so, it counts."""
        second = int(now)
        if second != self._second:
            self._forget(second)
        if self._retried >= SHARE * self._requested + PER_SECOND * WINDOW_S:
            return False
        self._retries[second % WINDOW_S] += 1
        self._retried += 1
        return True

    def _forget(self, second: int) -> None:
        for old in range(self._second + 1, min(second, self._second + WINDOW_S) + 1):
            slot = old % WINDOW_S
            self._requested -= self._requests[slot]
            self._retried -= self._retries[slot]
            self._requests[slot] = self._retries[slot] = 0
        self._second = second
