"""What the scheduler's half of the connector tells the worker's half for a step. Plain values: they cross processes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """The step computes KV of a tagged request up to `end_token`: tokens from `first_token` on can leave.

    `peer` is rank 0's KV address of the decode engine, `blocks` are all the request's, `from_token` to `total_tokens`
    is what the whole transfer covers, `prompt` digests what the KV depends on. `is_last`: nothing follows.
    """

    request_id: str
    key: str
    peer: str
    prompt: str
    blocks: tuple[int, ...]
    first_token: int
    end_token: int
    from_token: int
    total_tokens: int
    is_last: bool
    token_ids: tuple[int, ...] = ()
    """For a dump, with the last save of a sampled request only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """KV of a tagged request is to be put into `blocks` (all the request's) from `first_token` up to `end_token`."""

    request_id: str
    key: str
    peer: str
    prompt: str
    blocks: tuple[int, ...]
    first_token: int
    end_token: int
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unneeded:
    """A tagged request that takes nothing: what arrived, or is kept, for it can go. `reason` says why."""

    key: str
    peer: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Step:
    """One step's work. `held`: requests whose blocks the scheduler keeps until the worker reports them sent;
    `dropped`: tagged requests that ended without that."""

    saves: list[Save] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    unneeded: list[Unneeded] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    malformed: int = 0
    """Tags that could not be read; the requests were computed locally."""
