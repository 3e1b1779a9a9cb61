"""Received KV that waits for its request: what is there, how much it may be, how long it may stay. No IO, no clock.

Owns completeness (every layer covers every token that was asked for) and the bound on memory. What the payloads mean,
and whether they are intact, is for others.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from ppd_connector.messages import Put
from ppd_connector.store import Payload

_MAX_FINISHED_KEYS = 16_384


@dataclass(frozen=True, slots=True)
class Part:
    """One payload: a layer's KV of the tokens from `first_token` up to `end_token`."""

    layer: int
    first_token: int
    end_token: int
    payload: Payload


@dataclass(slots=True, kw_only=True)
class Entry:
    """All that arrived under one key."""

    sender: str
    prompt: str
    from_token: int
    total_tokens: int
    parts: list[Part] = field(default_factory=list)
    """What was not taken out yet."""
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    """Layer, first and end token of all that came."""
    held_bytes: int = 0
    moved_bytes: int = 0
    first_at: float = 0.0
    latest_at: float = 0.0
    seconds: float | None = None
    """How long the sender says that it took."""
    refusal: str | None = None
    """Why it can no longer become complete."""

    def is_complete(self, layers: int, first_token: int, end_token: int) -> bool:
        """True if every layer's spans cover the tokens without a gap."""
        ranges: list[list[tuple[int, int]]] = [[] for _ in range(layers)]
        for layer, first, end in self.spans:
            ranges[layer].append((first, end))
        return all(_covers(sorted(each), first_token, end_token) for each in ranges)


def _covers(ranges: list[tuple[int, int]], first: int, end: int) -> bool:
    reached = first
    for start, stop in ranges:
        if start > reached:
            break
        reached = max(reached, stop)
    return reached >= end


class Inbox:
    """Entries by key. `limit_bytes` bounds what is held; finished keys are remembered, so latecomers are refused."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: dict[str, Entry] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def is_finished(self, key: str) -> bool:
        return key in self._finished

    def add(self, put: Put, payload: Payload, now: float) -> str | None:
        """Keep one payload; the refusal ("gone", "full", "mismatch") when it cannot be kept, which ends its entry."""
        return self.admit(put, now) or self.place(put, payload, now)

    def admit(self, put: Put, now: float) -> str | None:
        """Count a payload that is to come as held; the refusal as from `add`."""
        if put.key in self._finished:
            return "gone"
        entry = self._entries.get(put.key)
        if entry is None:
            entry = self._entries[put.key] = Entry(
                sender=put.sender,
                prompt=put.prompt,
                from_token=put.from_token,
                total_tokens=put.total_tokens,
                first_at=now,
            )
        entry.latest_at = now
        if entry.refusal is not None:
            return entry.refusal
        known = (entry.sender, entry.prompt, entry.from_token, entry.total_tokens)
        if known != (put.sender, put.prompt, put.from_token, put.total_tokens):
            return self.refuse(put.key, "mismatch")
        if self.held_bytes + put.payload_bytes > self._limit_bytes:
            return self.refuse(put.key, "full")
        entry.held_bytes += put.payload_bytes
        entry.moved_bytes += put.payload_bytes
        self.held_bytes += put.payload_bytes
        return None

    def place(self, put: Put, payload: Payload, now: float) -> str | None:
        """Keep a payload that was admitted; the refusal when its entry came to an end meanwhile."""
        entry = self._entries.get(put.key)
        if entry is None or entry.refusal is not None:
            return "gone" if entry is None else entry.refusal
        entry.latest_at = now
        entry.parts.append(Part(put.layer, put.first_token, put.end_token, payload))
        entry.spans.append((put.layer, put.first_token, put.end_token))
        return None

    def take(self, key: str) -> list[Part]:
        """The parts that were not taken yet, which from now on only count for completeness."""
        entry = self._entries.get(key)
        if entry is None:
            return []
        taken, entry.parts = entry.parts, []
        size = sum(part.payload.nbytes for part in taken)
        entry.held_bytes -= size
        self.held_bytes -= size
        return taken

    def refuse(self, key: str, refusal: str) -> str:
        """Drop what the entry holds and remember why; without an entry nothing happens. Returns the refusal."""
        entry = self._entries.get(key)
        if entry is not None and entry.refusal is None:
            entry.refusal = refusal
            self._drop_parts(entry)
        return refusal

    def finish(self, key: str) -> Entry | None:
        """Forget the entry; whatever else comes under this key is refused."""
        self._finished[key] = None
        while len(self._finished) > _MAX_FINISHED_KEYS:
            self._finished.popitem(last=False)
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._drop_parts(entry)
        return entry

    def expired(self, now: float, lease_s: float) -> list[str]:
        """Keys to which nothing was added for `lease_s`."""
        return [key for key, entry in self._entries.items() if now - entry.latest_at >= lease_s]

    def _drop_parts(self, entry: Entry) -> None:
        self.held_bytes -= entry.held_bytes
        entry.held_bytes = 0
        entry.parts.clear()
