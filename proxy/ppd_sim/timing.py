"""How long a simulated engine takes, and the one clock its requests share.

Everything is zero by default: the engine answers at once. Durations pass on the event loop's timers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConfig:
    """Rates of one engine; a rate of 0 means it takes no time, `slots` of 0 means no limit on running requests."""

    prefill_tokens_per_s: float = 0.0
    append_prefill_tokens_per_s: float = 0.0
    prefill_fixed_ms: float = 0.0
    decode_ms_per_token: float = 0.0
    transfer_bytes_per_s: float = 0.0
    transfer_fixed_ms: float = 0.0
    kv_bytes_per_token: int = 131_072
    slots: int = 0

    def prefill_s(self, computed_tokens: int, cached_tokens: int) -> float:
        """Time to prefill `computed_tokens` behind `cached_tokens` that need no work."""
        rate = self.append_prefill_tokens_per_s if cached_tokens else 0.0
        rate = rate or self.prefill_tokens_per_s
        return self.prefill_fixed_ms / 1e3 + (computed_tokens / rate if rate else 0.0)

    def transfer_s(self, tokens: int) -> float:
        moved_bytes = tokens * self.kv_bytes_per_token
        rate = self.transfer_bytes_per_s
        return self.transfer_fixed_ms / 1e3 + (moved_bytes / rate if rate else 0.0)


class Slots:
    """At most `limit` requests run, the others wait in order of arrival; 0 is no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.running = 0

    @property
    def is_full(self) -> bool:
        return bool(self._limit) and (self.running >= self._limit or bool(self._waiters))

    @property
    def waiting(self) -> int:
        return sum(not waiter.done() for waiter in self._waiters)

    async def acquire(self) -> None:
        """Wait for a slot; cancellation while waiting takes none."""
        if not self.is_full:
            self.running += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()
            else:
                self._waiters.remove(waiter)
            raise

    def release(self) -> None:
        self.running -= 1
        while self._waiters and self.running < self._limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.running += 1
                waiter.set_result(None)


class PrefillLane:
    """Prefills of one engine run one after another, because each fills the accelerator by itself."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def occupy(self, duration_s: float) -> None:
        """Return when a prefill of this length that joins the lane now would be finished."""
        if duration_s <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + duration_s
        await asyncio.sleep(self._free_at - now)
