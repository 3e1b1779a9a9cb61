"""Prompts of a wanted length that share no prefix with any other, so that no cache answers for another conversation."""

from __future__ import annotations

import random
import secrets
from typing import Final

from chat_client import ProxyClient

WORDS: Final = tuple(
    """
    about after air again all also and animal answer back because before between book boy can change city close cold
    country day different does down each earth even every eye far father few find food four from give good great group
    hand hard head help here high home house just keep kind know land large last learn left letter life light line
    list little live long look made make man many may mean might more most mother mountain move much must name near
    need never new next night north now number off often old once only open other our over own page paper part people
    place plant play point right river road room same school sea second see sentence set should show side small some
    soon sound spell state still stop story study sun talk tell thing think three time together tree turn under until
    walk want watch water way white why wind word work world write year young
    """.split()
)
SAMPLE_WORDS: Final = 400


class Prompts:
    """Texts of random words. `seed` fixes the words, not the prefix: that differs from run to run, because engines
    keep their caches between runs."""

    def __init__(self, seed: int, tokens_per_word: float) -> None:
        self._random = random.Random(seed)
        self._tokens_per_word = tokens_per_word

    def unique(self, tokens: int) -> str:
        """About `tokens` tokens that begin with a random number."""
        prefix = " ".join(str(secrets.randbelow(900) + 100) for _ in range(4))
        return f"{prefix} {self.text(tokens - 8)}"

    def text(self, tokens: int) -> str:
        """About `tokens` tokens, at least one word."""
        return " ".join(self._random.choices(WORDS, k=max(1, round(tokens / self._tokens_per_word))))


async def measured_prompts(client: ProxyClient, model: str, seed: int) -> Prompts:
    """Prompts whose lengths are right for the engines' tokenizer."""
    sample = Prompts(seed, 1.0).text(SAMPLE_WORDS)
    return Prompts(seed, await client.count_tokens(model, sample) / SAMPLE_WORDS)
