"""What is asked of engines, and how they are reached: frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Endpoint = Literal["chat", "completions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What decides an answer beside the prompt; greedy and seeded unless told otherwise. `top_k` logprobs per token."""

    temperature: float
    top_p: float
    seed: int
    max_tokens: int
    top_k: int
    profile: str | None = None

    @property
    def is_greedy(self) -> bool:
        return self.temperature < 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How engines are reached. `target_api_key` is of every engine but the baseline, None: the same key. `timeout_s` is
    for one whole answer, `retries` counts attempts after the first."""

    model: str | None
    api_key: str | None
    target_api_key: str | None = None
    headers: Mapping[str, str]
    endpoint: Endpoint
    timeout_s: float
    retries: int
    retry_delay_s: float
    concurrency: int

    def key_of(self, side: str) -> str | None:
        """The key of an engine by what it is in a run."""
        has_own = side not in ("", "baseline") and self.target_api_key is not None
        return self.target_api_key if has_own else self.api_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms all engines of a run are asked. The noise floor is of `noise_answers`, none with 0."""

    sampling: Sampling
    access: Access
    noise_answers: int
