"""In-flight work by engine: what the placement policies compare and what attempts reserve and give back.

Owns the counts and nothing else: it does not know which engines exist or which requests hold what. Reads no clock:
`now` is monotonic seconds.
"""

from __future__ import annotations

from ppd_core.fleet.engine import Loads

FAILED_HALF_LIFE_S = 5.0
"""What failed on an engine counts as load of it, half as much after so long: an engine that fails at once has nothing
in flight, and would look idle."""
MIN_FAILED_TOKENS = 64
"""A failure counts for at least so much, or that of a short prompt would be forgotten at once."""


class Load:
    """Counts of the requests in flight; `tokens` is the `Loads` mapping the policies read.

    Both mappings hold only engines with a count above zero, so an engine that left does not stay behind.
    """

    __slots__ = ("_failed", "requests", "tokens")

    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}
        self.requests: dict[str, int] = {}
        self._failed: dict[str, tuple[float, float]] = {}
        """By engine: tokens of failed requests, and when they were counted."""

    def note_failed(self, engine_id: str, tokens: int, now: float) -> None:
        """A request of `tokens` tokens failed on an engine."""
        self._failed[engine_id] = (self._left(engine_id, now) + max(MIN_FAILED_TOKENS, tokens), now)

    def weighed(self, now: float) -> Loads:
        """The tokens in flight, and what is left of those that failed."""
        if not self._failed:
            return self.tokens
        loads = dict(self.tokens)
        for engine_id in tuple(self._failed):
            left = self._left(engine_id, now)
            if left < 1:
                del self._failed[engine_id]
            else:
                loads[engine_id] = loads.get(engine_id, 0) + int(left)
        return loads

    def _left(self, engine_id: str, now: float) -> float:
        tokens, at = self._failed.get(engine_id, (0.0, now))
        return float(tokens * 0.5 ** ((now - at) / FAILED_HALF_LIFE_S))

    def reserve(self, engine_id: str, tokens: int) -> Reservation:
        """Count one request of `tokens` tokens on an engine until the reservation is released."""
        if tokens < 0:
            raise ValueError(f"tokens is {tokens}; it must be 0 or more")
        self.requests[engine_id] = self.requests.get(engine_id, 0) + 1
        if tokens:
            self.tokens[engine_id] = self.tokens.get(engine_id, 0) + tokens
        return Reservation(self, engine_id, tokens)

    def _give_back(self, engine_id: str, tokens: int) -> None:
        left = self.requests[engine_id] - 1
        if left:
            self.requests[engine_id] = left
        else:
            del self.requests[engine_id]
        if tokens:
            left = self.tokens[engine_id] - tokens
            if left:
                self.tokens[engine_id] = left
            else:
                del self.tokens[engine_id]


class Reservation:
    """One request's share of an engine's load; whoever holds it releases it, as often as is convenient."""

    __slots__ = ("_load", "engine_id", "tokens")

    def __init__(self, load: Load, engine_id: str, tokens: int) -> None:
        self._load: Load | None = load
        self.engine_id = engine_id
        self.tokens = tokens

    def release(self) -> None:
        """Give the share back. Only the first call counts."""
        load, self._load = self._load, None
        if load is not None:
            load._give_back(self.engine_id, self.tokens)
