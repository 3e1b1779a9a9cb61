"""What the tables of turns do not say by themselves. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from chat_client import Answer

BLOCK_TOKENS = 128
"""vLLM's KV block on a CPU; on GPUs it is 16."""


def cold_direct_note(conversations: Iterable[Sequence[Answer]]) -> str | None:
    """Why direct turns found nothing cached whose history is shorter than a block; None where there are none."""
    turns: set[int] = set()
    for answers in conversations:
        for turn, (before, answer) in enumerate(pairwise(answers), 2):
            held_tokens = (before.prompt_tokens or 0) + (before.completion_tokens or 0)
            if answer.route == "direct" and not answer.cached_tokens and held_tokens < BLOCK_TOKENS:
                turns.add(turn)
    if not turns:
        return None
    named = ", ".join(map(str, sorted(turns)))
    return (
        f"Turn {named} went direct and found nothing cached. That is no fault: engines keep KV in whole blocks, vLLM "
        f"on a CPU in blocks of {BLOCK_TOKENS} tokens, and a history shorter than one block leaves nothing to find."
    )
