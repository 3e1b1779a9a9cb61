"""What a vLLM engine counts of speculative decoding, and the arithmetic between two readings.

Source: vLLM 0.32, `v1/spec_decode/metrics.py`. A draft is what was proposed for one request in one step; its tokens are
accepted in order, so the count at a position is how many drafts had at least that many tokens accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import NamedTuple

DRAFTS = "vllm:spec_decode_num_drafts_total"
DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED_TOKENS = "vllm:spec_decode_num_accepted_tokens_total"
ACCEPTED_PER_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"

MAX_POSITIONS = 64


class SpecCounters(NamedTuple):
    """Counters since the engine started, or what they gained. `per_position[i]`: drafts whose token `i` was accepted;
    empty where the engine does not tell."""

    drafts: float = 0
    draft_tokens: float = 0
    accepted_tokens: float = 0
    per_position: tuple[float, ...] = ()

    def since(self, before: SpecCounters) -> SpecCounters:
        """What was gained after the reading `before`. If any counter went down the engine began again at zero, and all
        that it shows is gain. So it is when it drafts another number of tokens than before."""
        if self.is_behind(before) or (before.drafts and len(self.per_position) != len(before.per_position)):
            return self
        positions = zip_longest(self.per_position, before.per_position, fillvalue=0.0)
        return SpecCounters(
            self.drafts - before.drafts,
            self.draft_tokens - before.draft_tokens,
            self.accepted_tokens - before.accepted_tokens,
            tuple(after - earlier for after, earlier in positions),
        )

    def is_behind(self, before: SpecCounters) -> bool:
        """True if any counter is lower than in the reading `before`."""
        positions = zip_longest(self.per_position, before.per_position, fillvalue=0.0)
        return any(after < earlier for after, earlier in (*zip(self[:3], before[:3], strict=True), *positions))


def read(totals: Mapping[str, float], per_position: Mapping[str, float]) -> SpecCounters | None:
    """From sums over models and ranks: by series name, and by the label `position` (from 0). None where the engine
    does not speculate. Positions after a gap are not read."""
    if not {DRAFTS, DRAFT_TOKENS, ACCEPTED_TOKENS} <= totals.keys():
        return None
    counts: list[float] = []
    while len(counts) < MAX_POSITIONS and (value := per_position.get(str(len(counts)))) is not None:
        counts.append(value)
    return SpecCounters(totals[DRAFTS], totals[DRAFT_TOKENS], totals[ACCEPTED_TOKENS], tuple(counts))
