"""What an engine counts about itself for tests, and what it remembers of the requests it got."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One generation request as it arrived; header names are lower-case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class EngineCounts:
    """Counters since the start.

    `transfers` and `transferred_tokens` are pulls into this engine; `released` are notices to a prefill engine that
    its blocks are not wanted; `stale_pulls` are pulls this engine refused because it no longer holds the blocks;
    `mismatched_handoffs` are transfers whose two legs had different prompt tokens (real vLLM would answer nonsense);
    `multi_sequence_handoffs` are requests with KV parameters and more than one sequence (real vLLM breaks).
    """

    requests: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    aborts: int = 0
    errors: int = 0
    transfers: int = 0
    transferred_tokens: int = 0
    failed_transfers: int = 0
    released: int = 0
    stale_pulls: int = 0
    expired_leases: int = 0
    full_local_hits: int = 0
    mismatched_handoffs: int = 0
    multi_sequence_handoffs: int = 0
    untagged_requests: int = 0

    def to_json(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "requests": dict(self.requests)}
