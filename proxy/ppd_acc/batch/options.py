"""What one run of batch-compare is told, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ppd_acc.batch.batch import Tops
from ppd_acc.batch.gating import Limits
from ppd_acc.compare.normalizing import Matching

NOISE_ANSWERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`outputs` are files by the flag's name: output (the report), csv, junit, markdown, prometheus. `journal` is
    where finished samples go; `is_own_journal`: nobody named it, so it goes when the report is complete. `prices` are
    USD per million input and output tokens. `request_name` begins the names of this run's requests, which no other
    run's have."""

    limits: Limits
    noise_answers: int
    is_forced: bool
    matching: Matching
    tops: Tops
    per_s: float | None
    cache_dir: Path | None
    cache_ttl_s: float
    journal: Path | None
    is_own_journal: bool
    is_resumed: bool
    outputs: Mapping[str, Path]
    cut_share: float | None
    prices: tuple[float, float] | None
    has_progress: bool
    request_name: str | None
