"""Where the noise floor's prompts come from: recent samples, and beginnings of them.

A prompt that is generated twice says little new: greedy, it gives the same answer, and so does a prompt with the
beginning of that answer. So each seed is used whole once, and then cut at another place of its second half each time: a
cut prompt is a context of its own, with the same kind of text. Requests that shape the logits are repeated whole, since
a grammar or a bias belongs to its prompt; each is used once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ppd_accuracy.verdicts.noise import NoiseKey, key_of
from ppd_proxy.shadow.sample import Sample
from ppd_wire.requests.checks import answer_body, replay_body
from ppd_wire.requests.generation import Kind

_SEEDS = 1000
_SUSPECTS = 50
_SEED_TOKENS = 4_000_000
_TRIES = 8


class NoiseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request for the baseline, whose answer it then scores itself."""

    key: NoiseKey
    path: str
    kind: Kind
    body: dict[str, Any]


class Seeds:
    """Recent samples by key, bounded by number and by tokens (as if all were as long as their bucket allows). `draw`
    gives uniform numbers in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._seeds: dict[NoiseKey, deque[_Seed]] = {}
        self._suspects: dict[NoiseKey, deque[_Seed]] = {}

    def add(self, key: NoiseKey, sample: Sample) -> None:
        """The newest sample of its key."""
        if sample.candidate.prompt_token_ids is not None:
            seeds = self._seeds.setdefault(key, deque(maxlen=_SEEDS))
            seeds.appendleft(_Seed(sample=sample))
            while len(seeds) > 1 and len(seeds) * key.bucket_tokens > _SEED_TOKENS:
                seeds.pop()

    def suspect(self, key: NoiseKey, sample: Sample) -> None:
        """A sample beyond the noise: whether the baseline alone is as far on its prompt is to be known first."""
        if sample.candidate.prompt_token_ids is not None:
            self._suspects.setdefault(key, deque(maxlen=_SUSPECTS)).append(_Seed(sample=sample))

    def count(self, key: NoiseKey) -> int:
        return len(self._seeds.get(key, ()))

    @property
    def keys(self) -> tuple[NoiseKey, ...]:
        return tuple(key for key, seeds in self._seeds.items() if seeds)

    def take(self, key: NoiseKey, *, is_doubted: bool = False) -> NoiseRequest | None:
        """The next thing to generate for the key, None without a seed: newest first. `is_doubted`: suspects first."""
        suspects = self._suspects.get(key)
        if is_doubted and suspects:
            return self._noise(key, suspects.popleft())
        seeds = self._seeds.get(key)
        if not seeds:
            return None
        seed = seeds.popleft()
        if key.sampling != "shaped":
            seeds.append(seed)
        return self._noise(key, seed)

    def _noise(self, key: NoiseKey, seed: _Seed) -> NoiseRequest:
        sample = seed.sample
        if key.sampling == "shaped":
            body = replay_body(sample.kind, sample.fields)
            return NoiseRequest(key=key, path=sample.path, kind=sample.kind, body=body)
        prompt = list(sample.candidate.prompt_token_ids or ())
        if seed.uses:
            prompt = prompt[: self._cut(key, len(prompt))]
        seed.uses += 1
        body = answer_body(key.model, prompt, len(sample.candidate.token_ids), sample.fields)
        return NoiseRequest(key=key, path="/v1/completions", kind="completion", body=body)

    def _cut(self, key: NoiseKey, length: int) -> int:
        """A length of the key's own bucket."""
        least = max(1, length // 2)
        for _ in range(_TRIES):
            end = least + int(self._draw() * (length - least))
            if key_of(key.model, end, key.sampling) == key:
                return end
        return length


class _Seed(msgspec.Struct, kw_only=True):
    sample: Sample
    uses: int = 0
