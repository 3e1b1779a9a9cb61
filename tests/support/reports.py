"""Small reports whose every figure a test has chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ppd_proxy.acc.report_files import totals_of
from ppd_proxy.acc.reports import Dataset, EngineInfo, Flip, Noise, Report, Sample, Side, Status


def side(tokens: Sequence[int], logprob: float = -0.1, **fields: Any) -> Side:
    """An answer whose every token has one logprob."""
    values: dict[str, Any] = {"logprobs": [logprob] * len(tokens), "finish_reason": "length", **fields}
    return Side(text=" ".join(map(str, tokens)), tokens=list(tokens), **values)


def equal(sample_id: str, length: int = 10, **fields: Any) -> Sample:
    values: dict[str, Any] = {
        "prompt": f"prompt {sample_id}", "prompt_tokens": 5, "compared_tokens": length,
        "baseline": side(range(length)), "target": side(range(length)), **fields,
    }  # fmt: skip
    return Sample(sample_id=sample_id, status="equal", **values)


def parted(
    sample_id: str, status: Status = "real", position: int = 7, length: int = 10, shift: float = 3.0, **fields: Any
) -> Sample:
    """Two answers that part at `position`."""
    flip = Flip(
        position=position, baseline_token=position, target_token=1000, baseline_margin=shift / 2,
        target_margin=shift / 2, shift=shift, chance=0.001,
    )  # fmt: skip
    values: dict[str, Any] = {
        "prompt": f"prompt {sample_id}", "prompt_tokens": 20, "compared_tokens": position, "mean_delta": 0.01,
        "max_delta": 0.02, "max_delta_at": 1, "flip": flip,
        "baseline": side(range(length)),
        "target": side([*range(position), *range(1000, 1000 + length - position)]),
        **fields,
    }  # fmt: skip
    return Sample(sample_id=sample_id, status=status, **values)


def failed(sample_id: str) -> Sample:
    return Sample(
        sample_id=sample_id, status="error", prompt="p", error="http://t answered 500", error_reason="status_500",
        failed="target",
    )  # fmt: skip


def report_of_samples(*samples: Sample, **fields: Any) -> Report:
    values: dict[str, Any] = {
        "created_at": 1_700_000_000.0,
        "baseline": EngineInfo(url="http://b:1", model="m"),
        "target": EngineInfo(url="http://t:2", model="m"),
        "datasets": [Dataset(path="p.jsonl", sha256="ab" * 32, samples=len(samples))],
        "noise": Noise(answers=20, flips=1, tokens=400, largest_shift=0.05, largest_delta=0.03),
        **fields,
    }
    return Report(samples=list(samples), totals=totals_of(samples), **values)


def written(directory: Path, *samples: Sample, name: str = "results.json", **fields: Any) -> str:
    """The report's path."""
    path = directory / name
    path.write_bytes(msgspec.json.encode(report_of_samples(*samples, **fields)))
    return str(path)


def published(directory: Path, *rows: dict[str, Any], name: str = "published.json") -> str:
    """A report of the published tool, schema 2."""
    path = directory / name
    path.write_bytes(msgspec.json.encode({"schema_version": 2, "total_samples": len(rows), "results": list(rows)}))
    return str(path)
