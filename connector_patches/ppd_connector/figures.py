"""What was moved, per direction and peer, since it was last asked for. Standard library only; used by two threads."""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple

Direction = Literal["send", "recv"]

MAX_PEERS = 64
OTHER = "other"

# Transfers, bytes, seconds, moved blocks, skipped blocks.
Row = list[float]


class RequestFigures(NamedTuple):
    """What one request's KV cost its decode engine."""

    moved_bytes: int
    seconds: float
    moved_blocks: int
    skipped_blocks: int


class Figures:
    """Counts until `take`. The number of peers is bounded, the rest is "other"."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._peers: set[str] = set()
        self._moved: dict[tuple[str, str], Row] = {}
        self._failed: dict[tuple[str, str, str], int] = {}

    def moved(
        self, direction: Direction, peer: str, *, kv_bytes: int, seconds: float, blocks: int, skipped_blocks: int
    ) -> None:
        """One finished transfer."""
        with self._lock:
            row = self._moved.setdefault((direction, self._peer(peer)), [0, 0, 0.0, 0, 0])
            for index, value in enumerate((1, kv_bytes, seconds, blocks, skipped_blocks)):
                row[index] += value

    def failed(self, direction: Direction, peer: str, reason: str) -> None:
        """One transfer that did not do what it was for; `reason` is a word of `messages.Refusal` or the like."""
        with self._lock:
            key = (direction, self._peer(peer), reason)
            self._failed[key] = self._failed.get(key, 0) + 1

    def take(self) -> dict[str, list[list[object]]] | None:
        """Everything since the last time in plain lists (it crosses processes), None when there is nothing."""
        with self._lock:
            if not self._moved and not self._failed:
                return None
            moved = [[*key, *row] for key, row in self._moved.items()]
            failed = [[*key, count] for key, count in self._failed.items()]
            self._moved, self._failed = {}, {}
        return {"moved": moved, "failed": failed}

    def _peer(self, peer: str) -> str:
        if peer not in self._peers:
            if len(self._peers) >= MAX_PEERS:
                return OTHER
            self._peers.add(peer)
        return peer
