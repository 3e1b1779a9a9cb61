"""A prompt at any length: in tokens of the engine where it takes token ids, else in words.

The same length several times is never the same text twice: the tokens are taken from another place of the prompt, and
beyond its end it begins again. So a length is tried, not one text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.engines import Engine, EngineTrouble
from ppd_acc.ask.question import Question

_WITHOUT_IDS = "lengths are in words, and the noise floor is of replays alone, so that ties may count as real"
_STEP = 7919
"""A prime: places repeat only after as many cuts as the prompt has pieces, unless it has a multiple of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """`pieces` are token ids, or words. With `is_same` every cut begins at the beginning."""

    pieces: Sequence[int] | Sequence[str]
    unit: Literal["tokens", "words"]
    is_same: bool = False

    @property
    def length(self) -> int:
        return len(self.pieces)

    def question(self, length: int, number: int) -> Question:
        """The cut of this length, number from 0. Number 0 is the beginning of the prompt."""
        start = 0 if self.is_same else number * _STEP
        cut: list[Any] = [self.pieces[(start + place) % len(self.pieces)] for place in range(length)]
        return Question(prompt=cut if self.unit == "tokens" else " ".join(cut))


async def cuts_of(engine: Engine, text: str, sampling: Sampling, *, wants_text: bool) -> tuple[Cuts, str | None]:
    """Cuts of a prompt, and why they are in words where they are. Raises EngineTrouble where nothing answers at all."""
    words = Cuts(pieces=text.split(), unit="words")
    if wants_text:
        return words, "--endpoint chat takes texts: lengths are in words, and the chat template comes on top"
    ids = await _token_ids(engine, text, sampling)
    if not ids:
        return words, f"the baseline tells no token ids of the prompt: {_WITHOUT_IDS}"
    try:
        await engine.ask(Question(prompt=ids[:1]), replace(sampling, max_tokens=1))
    except EngineTrouble as trouble:
        if not is_refusal(trouble):
            raise
        return words, f"the baseline takes no token ids ({trouble.reason}): {_WITHOUT_IDS}"
    return Cuts(pieces=ids, unit="tokens"), None


async def _token_ids(engine: Engine, text: str, sampling: Sampling) -> list[int]:
    """By /tokenize, else by what an answer tells of its prompt; empty where neither does."""
    try:
        told = await engine.post("/tokenize", {"model": await engine.model(), "prompt": text})
        tokens = told.get("tokens") if isinstance(told, dict) else None
        if isinstance(tokens, list) and all(isinstance(each, int) for each in tokens):
            return tokens
    except EngineTrouble as trouble:
        if not is_refusal(trouble):
            raise
    try:
        answer = await engine.ask(Question(prompt=text), replace(sampling, max_tokens=1))
    except EngineTrouble as trouble:
        if not is_refusal(trouble):
            raise
        return []
    return list(answer.prompt_token_ids or ())


def is_refusal(trouble: EngineTrouble) -> bool:
    """Whether the engine lives and does not do this."""
    return trouble.reason in ("status_400", "status_404", "status_405", "status_422", "status_501", "bad_answer")
