"""Where the prompt tokens of an engine's requests came from, told apart by route."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ppd_wire.metrics.scraped import EngineFigures


class PromptTokens(NamedTuple):
    """Prompt tokens by where their KV came from. A tuple: one is made per request, a frozen dataclass costs 2 µs."""

    local_cache: float = 0
    external_kv: float = 0
    computed: float = 0
    unknown: float = 0

    @property
    def total(self) -> float:
        return self.local_cache + self.external_kv + self.computed + self.unknown


def from_usage(prompt_tokens: int, cached_tokens: int | None) -> PromptTokens:
    """Split an answer's `usage` where the answering engine used only its own cache (routes `direct`, `aggregated`)."""
    if cached_tokens is None:
        return PromptTokens(unknown=prompt_tokens)
    cached = min(cached_tokens, prompt_tokens)
    return PromptTokens(local_cache=cached, computed=prompt_tokens - cached)


class TokenLedger:
    """Finds route `pd`'s share of one decode engine's prompt tokens.

    The engine counts all its requests together, and on `pd` their `usage` shows the prefill engine's cache. So what was
    handed over is `pd`'s; of what it found in its own cache or computed, `pd` gets what its other requests, known by
    their `usage`, leave over.

    The engine counts a request at its first token, the proxy at its end. What is left over while requests are in flight
    may be theirs, so it waits: until a reading at which the engine was idle, or until it was left over at every reading
    for `hold_s`. When too much was given to `pd` all the same, later readings give less; no share is ever negative.
    Over time the shares of all routes add up to what the engine reports. Requests without `usage` (their client left)
    are counted to `pd`.
    """

    __slots__ = ("_computed", "_hold_s", "_local", "_unsplit")

    def __init__(self, hold_s: float = 60.0) -> None:
        self._hold_s = hold_s
        self._local = _Remainder()
        self._computed = _Remainder()
        self._unsplit = 0.0

    def add_other(self, tokens: PromptTokens) -> None:
        """A finished request of another route on this engine."""
        self._local.gain(-tokens.local_cache)
        self._computed.gain(-tokens.computed)
        self._unsplit += tokens.unknown

    def settle(self, gained: EngineFigures, *, is_idle: bool, now: float) -> PromptTokens:
        """`pd`'s share of one reading's gain. `is_idle`: the proxy has no request in flight at this engine."""
        self._local.gain(gained.prompt_local_cache or 0)
        self._computed.gain(gained.prompt_computed or 0)
        if is_idle:
            local, computed = self._local.release_all(now), self._computed.release_all(now)
        else:
            since = now - self._hold_s
            local, computed = self._local.release_since(since, now), self._computed.release_since(since, now)
        # Another route's tokens whose source is not known are somewhere in these two, so neither share is `pd`'s alone.
        is_mixed = self._unsplit > 0
        shared = min(self._unsplit, local + computed)
        self._unsplit -= shared
        external = gained.prompt_external_kv or 0
        if is_mixed:
            return PromptTokens(external_kv=external, unknown=local + computed - shared)
        return PromptTokens(external_kv=external, local_cache=local, computed=computed)


class _Remainder:
    """What is left over of one source: lets go of what was there at every reading since some time."""

    __slots__ = ("_readings", "_released", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._released = 0.0
        self._readings: deque[tuple[float, float]] = deque()
        """(time, total), oldest first."""

    def gain(self, amount: float) -> None:
        self._total += amount

    def release_all(self, now: float) -> float:
        self._readings.clear()
        self._readings.append((now, self._total))
        return self._release(self._total)

    def release_since(self, since: float, now: float) -> float:
        self._readings.append((now, self._total))
        while len(self._readings) > 1 and self._readings[1][0] <= since:
            self._readings.popleft()
        if self._readings[0][0] > since:
            return 0
        return self._release(min(total for _, total in self._readings))

    def _release(self, up_to: float) -> float:
        amount = max(0.0, up_to - self._released)
        self._released += amount
        return amount
