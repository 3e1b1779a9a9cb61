"""Batch reports for tests of the commands that read them: ours, with chosen statuses, and the published tool's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ppd_proxy.acc.reports import Flip, Report, Sample, Side, Status


def sample(name: str, status: Status = "equal", **fields: Any) -> Sample:
    """One prompt with two answers of five tokens; a divergent one differs at token 3."""
    is_equal = status in ("equal", "error")
    made: dict[str, Any] = {
        "sample_id": name,
        "status": status,
        "prompt": f"prompt {name}",
        "baseline": Side(text="a", tokens=[1, 2, 3, 4, 5], finish_reason="stop"),
        "target": Side(text="a", tokens=[1, 2, 3, 4, 5] if is_equal else [1, 2, 3, 9, 9], finish_reason="stop"),
        "flip": None if is_equal else Flip(position=3),
        "compared_tokens": 5 if is_equal else 3,
        "error": "engine broke" if status == "error" else None,
    }
    return Sample(**{**made, **fields})


def divergent(ids: Iterable[int], total: int, status: Status = "real", prefix: str = "") -> list[Sample]:
    """Samples 0 to total - 1, of which those with these numbers diverge."""
    chosen = set(ids)
    return [sample(f"{prefix}{number}", status if number in chosen else "equal") for number in range(total)]


def write(path: Path, samples: Iterable[Sample], **fields: Any) -> str:
    """A report of ours; the path, for a command line."""
    path.write_bytes(msgspec.json.encode(Report(samples=list(samples), **fields)))
    return str(path)


def write_published(path: Path, ids: Iterable[int], total: int, **result: Any) -> str:
    """A report as xpyd-acc 0.1.0 writes it (schema 2), of which those with these numbers diverge."""
    chosen = set(ids)

    def row(number: int) -> Mapping[str, Any]:
        is_equal = number not in chosen
        return {
            "sample_id": str(number), "prompt": f"prompt {number}", "baseline_output": "one two three",
            "target_output": "one two three" if is_equal else "one four", "exact_match": is_equal,
            "first_divergence_index": None if is_equal else 1, "logprob_gap": None,
            "classification": "match" if is_equal else "unknown", "context_length": 2,
            "baseline_finish_reason": "stop", "target_finish_reason": "stop", **result,
        }  # fmt: skip

    head = {"schema_version": 2, "total_samples": total, "divergent_samples": len(chosen)}
    path.write_text(json.dumps({**head, "results": [row(number) for number in range(total)]}))
    return str(path)
