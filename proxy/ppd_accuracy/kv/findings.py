"""What was found in a tensor that differs, and its words. Indices count from 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal[
    "not_finite", "zero", "zero_baseline", "scaled", "moved_heads", "moved_tokens", "stale", "scattered",
    "moved_layers", "key_for_value",
]  # fmt: skip
Mask = NDArray[np.bool_]
SHOWN_MOVES = 8
SHOWN_RANGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFinding:
    """`tokens` are ranges, the end excluded; `offset` is how far on the content comes from; `sources` says of each of
    `heads` (or layers) whose content it holds; `factor` is target / baseline; `error` the largest relative L2 of a row.
    Empty or None where it means nothing."""

    kind: Kind
    text: str
    tokens: tuple[tuple[int, int], ...] = ()
    heads: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    offset: int | None = None
    factor: float | None = None
    error: float | None = None


def told_moves(name: str, moved: Sequence[int], sources: Sequence[int], count: int) -> str:
    """In words: swapped, rotated, exchanged, or copied, place by place."""
    offsets = {(source - place) % count for place, source in zip(moved, sources, strict=True)}
    if len(moved) == 2 and tuple(sources) == tuple(reversed(moved)):
        return f"{name}s {moved[0]} and {moved[1]} are swapped"
    if len(moved) == count and len(offsets) == 1:
        offset = offsets.pop()
        return f"{name}s are rotated: {name} i holds {name} (i + {offset}) mod {count}"
    if len(moved) == 1:
        return f"{name} {moved[0]} holds the content of {name} {sources[0]}"
    pairs = [f"{place} holds {source}" for place, source in zip(moved, sources, strict=True)]
    more = f" and {len(pairs) - SHOWN_MOVES} more" if len(pairs) > SHOWN_MOVES else ""
    if sorted(moved) == sorted(sources):
        return f"{name}s are exchanged: " + ", ".join(pairs[:SHOWN_MOVES]) + more
    return f"{name}s hold others' content: " + ", ".join(pairs[:SHOWN_MOVES]) + more


def tokens_of(mask: Mask) -> Mask:
    """In which tokens something is, of (heads, tokens)."""
    tokens: Mask = np.any(mask, axis=0)
    return tokens


def heads_of(mask: Mask) -> tuple[int, ...]:
    return tuple(np.flatnonzero(np.any(mask, axis=1)).tolist())


def ranges_of(mask: Mask) -> tuple[tuple[int, int], ...]:
    """The runs of a mask as (start, end), the end excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def told_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    """Ranges of tokens for people: both ends included."""
    is_one = len(ranges) == 1 and ranges[0][1] == ranges[0][0] + 1
    return f"token{'' if is_one else 's'} {_runs(ranges)}"


def told(name: str, indices: Sequence[int]) -> str:
    """The name and the rising indices, runs as their ends."""
    mask = np.zeros(max(indices) + 1, np.bool_)
    mask[list(indices)] = True
    ranges = ranges_of(mask)
    return f"{name}{'' if len(indices) == 1 else 's'} {_runs(ranges)}"


def _runs(ranges: Sequence[tuple[int, int]]) -> str:
    parts = [f"{start}" if stop == start + 1 else f"{start} to {stop - 1}" for start, stop in ranges]
    more = f" and {len(parts) - SHOWN_RANGES} more ranges" if len(parts) > SHOWN_RANGES else ""
    return ", ".join(parts[:SHOWN_RANGES]) + more


def are_blocks(ranges: Sequence[tuple[int, int]], block_size: int, tokens: int) -> bool:
    """Whether the ranges begin and end where blocks do."""
    return all(start % block_size == 0 and (stop % block_size == 0 or stop == tokens) for start, stop in ranges)


def told_blocks(ranges: Sequence[tuple[int, int]], block_size: int, tokens: int) -> str:
    if not are_blocks(ranges, block_size, tokens):
        return ""
    blocks = [index for start, stop in ranges for index in range(start // block_size, -(-stop // block_size))]
    return f" ({told('block', blocks)} of {block_size} tokens)"
