"""What KV transfers cost: bytes and seconds in all, and the latest rate of each pair.

Engines measure their transfers or do not; where they do not, requests tell about how long one took.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from ppd_wire.metrics.scraped import ByLabels

SEVERAL = "several"
"""In place of a prefill engine's id: more than one, or one that the fleet does not know."""
Origin = Literal["measured", "estimated"]


class Transfers:
    """Totals have an origin from its first transfer on; `measured` is there as soon as an engine measures."""

    __slots__ = ("_open", "kv_bytes", "rates", "seconds")

    def __init__(self) -> None:
        self.kv_bytes: defaultdict[Origin, float] = defaultdict(float)
        self.seconds: defaultdict[Origin, float] = defaultdict(float)
        self.rates: dict[str, tuple[Origin, dict[str, float]]] = {}
        """By decode engine: bytes per second by prefill engine, of its last interval with transfers."""
        self._open: dict[str, dict[str, tuple[float, float]]] = {}
        """Estimates of this interval, by decode and prefill engine: bytes, seconds."""

    def measure(self, decode_id: str | None, kv_bytes: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        """What one engine measured since its last reading, by prefill engine; None: it is no decode engine."""
        self.kv_bytes["measured"] += sum(kv_bytes.values())
        self.seconds["measured"] += sum(seconds.values())
        rates = {prefill: kv_bytes[prefill] / spent for prefill, spent in seconds.items() if prefill in kv_bytes}
        if decode_id is not None and rates:
            self.rates[decode_id] = ("measured", rates)

    def estimate(self, decode_id: str, prefill_id: str | None, kv_bytes: float, spent_s: float) -> None:
        """One transfer that nobody measures; `spent_s` is 0 where not even a request tells."""
        self.kv_bytes["estimated"] += kv_bytes
        if prefill_id is None or spent_s <= 0:
            return
        self.seconds["estimated"] += spent_s
        pairs = self._open.setdefault(decode_id, {})
        before = pairs.get(prefill_id, (0.0, 0.0))
        pairs[prefill_id] = (before[0] + kv_bytes, before[1] + spent_s)

    def close(self, decode_id: str) -> None:
        """The end of an interval: its estimates become rates."""
        pairs = self._open.pop(decode_id, None)
        if pairs:
            rates = {prefill: kv_bytes / spent_s for prefill, (kv_bytes, spent_s) in pairs.items()}
            self.rates[decode_id] = ("estimated", rates)

    def forget(self, decode_id: str) -> None:
        self._open.pop(decode_id, None)
        self.rates.pop(decode_id, None)


def by_prefill(received: ByLabels, ids: Mapping[str | None, str]) -> defaultdict[str, float]:
    """What our connector counted by peer, by prefill engine instead; `ids` are the fleet's by ZMQ address."""
    amounts: defaultdict[str, float] = defaultdict(float)
    for (_, peer), amount in received.items():
        amounts[ids.get(peer, SEVERAL)] += amount
    return amounts
