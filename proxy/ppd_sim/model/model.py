"""The simulated language model: the next token is a hash of everything before it.

Two engines with the same model seed and adapter agree on every distribution, whatever they cached or transferred,
exactly as two engines with the same weights should. What may differ is made explicit: noise between decoding and
prefilling (`prefill_noise_nats`), noise between engines (`engine_noise_nats`), and how often the two best tokens are
nearly tied (`near_tie_share`), which is when noise changes an answer. `split_character_share` is how often a character
follows that takes two tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash

from ppd_sim.model.tokens import EOS_ID, SPECIALS, word_id
from ppd_sim.model.vocabulary import WORDS

CANDIDATES: Final = 24
TAIL_LOGPROB: Final = -14.0
_PLAIN: Final = tuple(word_id(" " + word) for word in WORDS)
_CAPITAL: Final = tuple(word_id(" " + word.capitalize()) for word in WORDS)
_OPENING: Final = tuple(word_id(word.capitalize()) for word in WORDS)
_DONE: Final = word_id(" done")
_PERIOD: Final = ord(".")
_COMMA: Final = ord(",")
_NEWLINE: Final = ord("\n")
_SPLIT_CHARACTER: Final = tuple("é".encode())
_UNIT: Final = float(1 << 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What the simulated weights and numerics are; probabilities are shares in 0..1, noise is in nats."""

    seed: int = 0
    mean_answer_tokens: int = 200
    near_tie_share: float = 0.05
    near_tie_nats: float = 0.02
    split_character_share: float = 0.0
    prefill_noise_nats: float = 0.0
    engine_noise_nats: float = 0.0
    noise_seed: int = 0


@dataclass(frozen=True, slots=True)
class Scored:
    """One token of a distribution: its log-probability in nats and its rank, 1 = most likely."""

    token_id: int
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preceding:
    """Everything the model knows before one token: the hash of all tokens before it, and the last two."""

    digest: int
    last: int
    before_last: int


def uniform(digest: int, salt: int) -> float:
    """A number in [0, 1) that depends on both arguments only."""
    return xxhash.xxh3_64_intdigest(digest.to_bytes(8, "little"), seed=salt & 0xFFFF_FFFF_FFFF_FFFF) / _UNIT


def pack_tokens(token_ids: Sequence[int]) -> bytes:
    """Little-endian 32-bit ids; what hashes are taken over."""
    return np.asarray(token_ids, dtype="<u4").tobytes()


class TokenHistory:
    """The tokens so far, hashed as they come."""

    def __init__(self, seed: int, token_ids: Sequence[int] = ()) -> None:
        self._hash = xxhash.xxh3_64(pack_tokens(token_ids), seed=seed)
        self._last = token_ids[-1] if token_ids else _NEWLINE
        self._before_last = token_ids[-2] if len(token_ids) > 1 else _NEWLINE

    def append(self, token_id: int) -> None:
        self._hash.update(token_id.to_bytes(4, "little"))
        self._before_last, self._last = self._last, token_id

    def position(self) -> Preceding:
        return Preceding(digest=self._hash.intdigest(), last=self._last, before_last=self._before_last)


class Model:
    """Next-token distributions. `weights_seed` of an adapter differs from the base model's."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def weights_seed(self, adapter: str | None = None) -> int:
        return xxhash.xxh3_64_intdigest((adapter or "").encode(), seed=self.config.seed)

    def candidates(self, position: Preceding) -> list[int]:
        """The likely tokens, most likely first (before noise): distinct, readable after what came before."""
        digest = position.digest
        words = _word_form(position.last)
        start, step = digest % len(words), 1 + (digest >> 16) % (len(words) - 1)
        token_ids = [words[(start + place * step) % len(words)] for place in range(CANDIDATES)]
        forced = self._forced(position)
        if forced is not None:
            token_ids.insert(0, forced)
            token_ids.pop()
        return token_ids

    def _forced(self, position: Preceding) -> int | None:
        if position.last == _DONE:
            return _PERIOD
        if position.last == _PERIOD and position.before_last == _DONE:
            return EOS_ID
        if position.last == _SPLIT_CHARACTER[0]:
            return _SPLIT_CHARACTER[1]
        if position.last in (_PERIOD, _COMMA, _NEWLINE) or position.last == EOS_ID:
            return None
        share = self.config.split_character_share
        if share and uniform(position.digest, 5) < share:
            return _SPLIT_CHARACTER[0]
        draw = position.digest >> 40
        if draw % self.config.mean_answer_tokens == 0:
            return _DONE
        return {0: _PERIOD, 1: _COMMA, 2: _COMMA}.get(draw % 17)

    def top_token(self, position: Preceding, banned: Iterable[int] = ()) -> int:
        """The greedy choice while decoding on this engine."""
        if not banned and not self.config.engine_noise_nats:
            forced = self._forced(position)
            return _word_form(position.last)[position.digest % len(WORDS)] if forced is None else forced
        return self.decode_scores(position, banned)[0].token_id

    def decode_scores(self, position: Preceding, banned: Iterable[int] = ()) -> list[Scored]:
        """The distribution as decoding computes it, most likely first, log-probabilities normalised."""
        return self._scores(position, self.config.engine_noise_nats, self.config.noise_seed, banned)

    def prefill_scores(self, position: Preceding) -> list[Scored]:
        """The distribution as prefilling the same tokens computes it: a little noise apart from decoding."""
        nats = self.config.prefill_noise_nats + self.config.engine_noise_nats
        return self._scores(position, nats, self.config.noise_seed + 1, ())

    def tail_score(self, position: Preceding, token_id: int) -> Scored:
        """An unlikely token: everything that is not among the candidates."""
        draw = uniform(position.digest, token_id)
        return Scored(token_id, TAIL_LOGPROB - 6.0 * draw, CANDIDATES + 1 + int(draw * 30_000))

    def _scores(self, position: Preceding, noise_nats: float, noise_seed: int, banned: Iterable[int]) -> list[Scored]:
        token_ids = self.candidates(position)
        logits = self._logits(position.digest)
        if noise_nats:
            logits = [
                logit + noise_nats * (2.0 * uniform(position.digest ^ token_id, noise_seed) - 1.0)
                for logit, token_id in zip(logits, token_ids, strict=True)
            ]
        pairs = [pair for pair in zip(logits, token_ids, strict=True) if pair[1] not in banned]
        pairs.sort(key=lambda pair: -pair[0])
        total = math.log(math.fsum(math.exp(logit) for logit, _ in pairs))
        return [Scored(token_id, logit - total, rank) for rank, (logit, token_id) in enumerate(pairs, 1)]

    def _logits(self, digest: int) -> list[float]:
        is_near_tie = uniform(digest, 1) < self.config.near_tie_share
        gap = self.config.near_tie_nats * uniform(digest, 2) if is_near_tie else 0.3 + 3.0 * uniform(digest, 3)
        slope = 0.15 + 0.5 * uniform(digest, 4)
        return [0.0, *(-gap - slope * place for place in range(CANDIDATES - 1))]


def _word_form(last: int) -> tuple[int, ...]:
    if last == EOS_ID:
        return _CAPITAL
    if last == _NEWLINE or EOS_ID < last < EOS_ID + len(SPECIALS):
        return _OPENING
    return _CAPITAL if last == _PERIOD else _PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """How tokens are drawn. `seed` makes draws at temperature > 0 repeatable; `choice` tells the n answers apart."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    choice: int = 0


def draw(scores: Sequence[Scored], sampling: SamplingRules, step: int) -> Scored:
    """The token sampled at output position `step`."""
    if sampling.temperature < 1e-5:
        return scores[0]
    kept = scores[: sampling.top_k] if sampling.top_k > 0 else scores
    weights = [math.exp((score.logprob - scores[0].logprob) / sampling.temperature) for score in kept]
    total = math.fsum(weights)
    nucleus, mass = 0, 0.0
    while nucleus < len(weights) and mass < sampling.top_p * total:
        mass += weights[nucleus]
        nucleus += 1
    point = mass * uniform(sampling.seed & 0xFFFF_FFFF_FFFF_FFFF, step * 1_000_003 + sampling.choice)
    for score, weight in zip(kept[:nucleus], weights, strict=False):
        point -= weight
        if point < 0:
            return score
    return kept[max(nucleus - 1, 0)]
