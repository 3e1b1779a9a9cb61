"""vLLM 0.32's scheduler objects, reduced to the fields that a connector reads (`v1/core/sched/output.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field

PROMPT = list(range(100, 137))


@dataclass
class Feature:
    identifier: str


@dataclass
class Lora:
    lora_name: str


@dataclass
class Request:
    request_id: str
    prompt_token_ids: list[int] | None = field(default_factory=lambda: list(PROMPT))
    mm_features: list[Feature] = field(default_factory=list)
    lora_request: Lora | None = None
    skip_reading_prefix_cache: bool = False


@dataclass
class NewRequestData:
    req_id: str
    prompt_token_ids: list[int] | None
    mm_features: list[Feature]
    block_ids: tuple[list[int], ...]
    num_computed_tokens: int
    lora_request: Lora | None = None


@dataclass
class CachedRequestData:
    req_ids: list[str] = field(default_factory=list)
    resumed_req_ids: set[str] = field(default_factory=set)
    new_block_ids: list[tuple[list[int], ...] | None] = field(default_factory=list)
    num_computed_tokens: list[int] = field(default_factory=list)


@dataclass
class SchedulerOutput:
    scheduled_new_reqs: list[NewRequestData]
    scheduled_cached_reqs: CachedRequestData
    num_scheduled_tokens: dict[str, int]
