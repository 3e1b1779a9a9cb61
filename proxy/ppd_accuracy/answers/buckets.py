"""Prompt-length buckets: noise grows with the context, so it is kept for each of them."""

from __future__ import annotations

_FIRST_TOKENS = 256
_RATIO = 2


def prompt_bucket(prompt_tokens: int) -> int:
    """Upper end, in tokens, of the bucket that a prompt falls into: 256, 512, 1,024, ..."""
    bucket = _FIRST_TOKENS
    while bucket < prompt_tokens:
        bucket *= _RATIO
    return bucket
