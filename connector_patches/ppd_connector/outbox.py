"""KV on its way out: what may be sent now, what was not acknowledged yet, who is left alone. No IO, no clock.

Owns the window (bytes under way per peer, so that neither side's socket buffers grow), the throttle, the limit on
waiting for an acknowledgement, and how long a transfer took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ppd_connector.messages import Put
from ppd_connector.route import Route
from ppd_connector.store import Payload

WINDOW_BYTES = 32 * 2**20
_LEAST_PAUSE_S = 0.002
"""While a throttled lane's window is full, its turn may have come long ago."""


class Fences:
    """Peers that cost a timeout are left alone for a while, unless they are heard of."""

    def __init__(self, fence_s: float) -> None:
        self._fence_s = fence_s
        self._until: dict[str, float] = {}

    def raise_for(self, peer: str, now: float) -> None:
        self._until[peer] = now + self._fence_s

    def lift(self, peer: str) -> None:
        self._until.pop(peer, None)

    def stands(self, peer: str, now: float) -> bool:
        until = self._until.get(peer)
        if until is not None and now >= until:
            del self._until[peer]
            return False
        return until is not None


@dataclass(slots=True, kw_only=True)
class Parcel:
    """One `Put` to be sent; `read` gives its payload when its turn comes (it may have to wait for a copy)."""

    route: Route
    put: Put
    read: Callable[[], Payload]


@dataclass(slots=True, kw_only=True)
class Sending:
    """One transfer. It is over when its last parcel was queued (`is_whole`) and every parcel acknowledged."""

    key: str
    peer: str
    route: Route
    queued: int = 0
    under_way: int = 0
    moved_bytes: int = 0
    moved_blocks: int = 0
    skipped_blocks: int = 0
    is_whole: bool = False
    busy_since: float = 0.0
    seconds: float = 0.0
    refusal: str | None = None

    @property
    def is_over(self) -> bool:
        return self.is_whole and self.queued == 0 and self.under_way == 0


@dataclass(slots=True)
class _Lane:
    """One peer's parcels."""

    waiting: deque[Parcel] = field(default_factory=deque)
    under_way: deque[Parcel] = field(default_factory=deque)
    window_bytes: int = 0
    heard_at: float = 0.0


class Outbox:
    """Parcels by route. `bytes_per_s` may be set at any time (None: as fast as it goes)."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lanes: dict[Route, _Lane] = {}
        self._free_at = 0.0
        self.sendings: dict[str, Sending] = {}
        self.bytes_per_s: float | None = None
        self.waiting_bytes = 0
        """Queued or under way: memory that the producer holds for its peers."""

    def open(self, sending: Sending) -> Sending:
        """The transfer under this key, `sending` itself where there was none."""
        return self.sendings.setdefault(sending.key, sending)

    def queue(self, parcel: Parcel) -> None:
        """Queue a parcel of an open transfer; dropped when that was refused already."""
        sending = self.sendings.get(parcel.put.key)
        if sending is None or sending.refusal is not None:
            return
        self._lanes.setdefault(parcel.route, _Lane()).waiting.append(parcel)
        sending.queued += 1
        self.waiting_bytes += parcel.put.payload_bytes

    def due(self, now: float) -> Iterable[Parcel]:
        """Take the parcels that may be sent now. Their acknowledgement is awaited from `now` on."""
        for lane in tuple(self._lanes.values()):
            while lane.waiting and (self.bytes_per_s is None or now >= self._free_at):
                size = lane.waiting[0].put.payload_bytes
                if lane.under_way and lane.window_bytes + size > WINDOW_BYTES:
                    break
                if self.bytes_per_s is not None:
                    self._free_at = max(now, self._free_at) + size / self.bytes_per_s
                yield self._launch(lane, lane.waiting.popleft(), now)

    def _launch(self, lane: _Lane, parcel: Parcel, now: float) -> Parcel:
        sending = self.sendings.get(parcel.put.key)
        if not lane.under_way:
            lane.heard_at = now
        lane.under_way.append(parcel)
        lane.window_bytes += parcel.put.payload_bytes
        if sending is not None:
            if sending.under_way == 0:
                sending.busy_since = now
            sending.under_way += 1
            sending.queued -= 1
        return parcel

    def acknowledged(self, route: Route, key: str, layer: int, first_token: int, now: float) -> Sending | None:
        """A parcel arrived: its transfer, None when no such parcel is under way."""
        lane = self._lanes.get(route)
        if lane is None:
            return None
        lane.heard_at = now
        for parcel in lane.under_way:
            if (parcel.put.key, parcel.put.layer, parcel.put.first_token) == (key, layer, first_token):
                break
        else:
            return None
        lane.under_way.remove(parcel)
        if not lane.under_way and not lane.waiting:
            del self._lanes[route]
        lane.window_bytes -= parcel.put.payload_bytes
        self.waiting_bytes -= parcel.put.payload_bytes
        sending = self.sendings.get(key)
        if sending is None:
            return None
        sending.under_way -= 1
        sending.moved_bytes += parcel.put.payload_bytes
        if sending.under_way == 0:
            sending.seconds += now - sending.busy_since
        return sending

    def close(self, key: str, refusal: str | None = None) -> Sending | None:
        """Forget a transfer and drop its parcels that wait; those under way keep their place in the window."""
        sending = self.sendings.pop(key, None)
        if sending is None:
            return None
        sending.refusal = refusal
        lane = self._lanes.get(sending.route)
        if lane is not None:
            for parcel in [each for each in lane.waiting if each.put.key == key]:
                lane.waiting.remove(parcel)
                self.waiting_bytes -= parcel.put.payload_bytes
            if not lane.waiting and not lane.under_way:
                del self._lanes[sending.route]
        return sending

    def silent(self, now: float) -> list[Route]:
        """Routes on which something is under way and nothing was acknowledged for the timeout."""
        return [
            route for route, lane in self._lanes.items() if lane.under_way and now - lane.heard_at >= self._timeout_s
        ]

    def cut(self, route: Route) -> list[Sending]:
        """Forget a route and everything that was to take it: the transfers that this ends."""
        lane = self._lanes.pop(route, None)
        if lane is None:
            return []
        self.waiting_bytes -= sum(parcel.put.payload_bytes for parcel in (*lane.waiting, *lane.under_way))
        ended = [sending for sending in self.sendings.values() if sending.route == route]
        for sending in ended:
            del self.sendings[sending.key]
        return ended

    def next_at(self, now: float) -> float | None:
        """When `due` or `silent` may have something new; None while nothing waits."""
        times = [lane.heard_at + self._timeout_s for lane in self._lanes.values() if lane.under_way]
        if self.bytes_per_s is not None and any(lane.waiting for lane in self._lanes.values()):
            times.append(max(self._free_at, now + _LEAST_PAUSE_S))
        return min(times, default=None)
