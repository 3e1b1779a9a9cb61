"""Where the noise floor's prompts come from: recent samples, and beginnings of them.

A prompt that is generated twice says little new: greedy, it gives the same answer, and so does a prompt with the
beginning of that answer. So each seed is used whole once, and then cut at another place of its second half each time: a
cut prompt is a context of its own, with the same kind of text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ppd_proxy.accuracy.noise import Key, key_of
from ppd_proxy.shadow.sample import Sample

_SAMPLING = ("temperature", "top_p", "top_k", "min_p")
_SEEDS = 1000
_SEED_TOKENS = 4_000_000
_TRIES = 8


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to generate on the baseline and to score there."""

    key: Key
    prompt: list[int]
    body: dict[str, Any]


class _Seed(msgspec.Struct, kw_only=True):
    prompt: list[int]
    answer_tokens: int
    sampling: dict[str, Any]
    uses: int = 0


class Seeds:
    """Recent samples by key, bounded by number and by tokens (as if all were as long as their bucket allows). `draw`
    gives uniform numbers in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._seeds: dict[Key, deque[_Seed]] = {}

    def add(self, key: Key, sample: Sample) -> None:
        candidate = sample.candidate
        if candidate.prompt_token_ids is None:
            return
        seeds = self._seeds.setdefault(key, deque(maxlen=_SEEDS))
        seeds.append(
            _Seed(
                prompt=candidate.prompt_token_ids,
                answer_tokens=len(candidate.token_ids),
                sampling={
                    name: msgspec.json.decode(sample.fields[name]) for name in _SAMPLING if name in sample.fields
                },
            )
        )
        while len(seeds) > 1 and len(seeds) * key.bucket_tokens > _SEED_TOKENS:
            seeds.popleft()

    def count(self, key: Key) -> int:
        return len(self._seeds.get(key, ()))

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(key for key, seeds in self._seeds.items() if seeds)

    def take(self, key: Key) -> Noise | None:
        """The next thing to generate for the key; None without a seed."""
        seeds = self._seeds.get(key)
        if not seeds:
            return None
        seed = seeds[0]
        seeds.rotate(-1)
        prompt = seed.prompt if not seed.uses else seed.prompt[: self._cut(key, seed)]
        seed.uses += 1
        body = {
            "model": key.model,
            "prompt": prompt,
            "max_tokens": seed.answer_tokens,
            **seed.sampling,
            "logprobs": 0,
            "return_token_ids": True,
        }
        return Noise(key=key, prompt=prompt, body=body)

    def _cut(self, key: Key, seed: _Seed) -> int:
        """A length of the key's own bucket."""
        length = len(seed.prompt)
        least = max(1, length // 2)
        for _ in range(_TRIES):
            end = least + int(self._draw() * (length - least))
            if key_of(key.model, end, is_greedy=key.is_greedy) == key:
                return end
        return length
