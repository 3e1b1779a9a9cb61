"""Label values: where they come from and how many there can be.

No label value is taken from a request. Engines are bounded by the fleet; everything else is a closed vocabulary or goes
through `Bounded`.
"""

from __future__ import annotations

OTHER = "other"
FIRST_TURN = "1"
LATER_TURNS = "2+"


def turn_label(turn: int) -> str:
    """Turns are counted in two groups: what is new, and what an engine may already hold."""
    return FIRST_TURN if turn <= 1 else LATER_TURNS


class Bounded:
    """Lets the first `limit` distinct values through and turns all others into `other`."""

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value
