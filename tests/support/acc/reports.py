"""Batch reports, datasets and journals for ppd-acc, ours and the published tool's: every figure is a test's choice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ppd_acc.data.report import Dataset, EngineInfo, Flip, Noise, Report, Sample, Side, Status
from ppd_acc.data.totals import totals_of


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


def sample(name: str, status: Status = "equal", **fields: Any) -> Sample:
    """One prompt with two answers of five tokens; a divergent one differs at token 3."""
    if status == "error":
        return failed(name)
    return equal(name, 5, **fields) if status == "equal" else parted(name, status, 3, 5, **fields)


def divergent(ids: Iterable[int], total: int, status: Status = "real", prefix: str = "") -> list[Sample]:
    """Samples 0 to total - 1, of which those with these numbers diverge."""
    chosen = set(ids)
    return [sample(f"{prefix}{number}", status if number in chosen else "equal") for number in range(total)]


def report_of_samples(*samples: Sample, **fields: Any) -> Report:
    values: dict[str, Any] = {
        "created_at": 1_700_000_000.0,
        "baseline": EngineInfo(url="http://b:1", model="m"),
        "target": EngineInfo(url="http://t:2", model="m"),
        "datasets": [Dataset(path="p.jsonl", sha256="ab" * 32, samples=len(samples))],
        "noise": Noise(answers=20, flips=1, tokens=400, largest_shift=0.05, largest_delta=0.03),
        **fields,
    }
    return Report(samples=list(samples), totals=totals_of(each.status for each in samples), **values)


def write(path: Path, samples: Iterable[Sample], **fields: Any) -> str:
    """A report without totals; the path, for a command line."""
    path.write_bytes(msgspec.json.encode(Report(samples=list(samples), **fields)))
    return str(path)


def written(directory: Path, *samples: Sample, name: str = "results.json", **fields: Any) -> str:
    """The report's path."""
    path = directory / name
    path.write_bytes(msgspec.json.encode(report_of_samples(*samples, **fields)))
    return str(path)


def published(directory: Path, *rows: Mapping[str, Any], name: str = "published.json") -> str:
    """A report of the published tool, schema 2."""
    path = directory / name
    path.write_bytes(msgspec.json.encode({"schema_version": 2, "total_samples": len(rows), "results": list(rows)}))
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

    return published(path.parent, *(row(number) for number in range(total)), name=path.name)


def dataset(folder: Path, count: int, name: str = "prompts.jsonl") -> str:
    """`count` prompts q0, q1, ..., with the ids s0, s1, ..."""
    lines = (json.dumps({"id": f"s{number}", "prompt": f"q{number}"}) for number in range(count))
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / name)


def rows_in(journal: Path) -> list[int]:
    """The row number of every finished sample's line, in the order of writing."""
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    return [line["row"] for line in lines if "row" in line]


def write_before_and_after(folder: Path) -> None:
    """`before.json` and `after.json` as the published tool writes them: 5 and 15 of 100 samples differ."""
    for name, divergent in (("before", 5), ("after", 15)):
        results = [
            {"sample_id": f"s{number}", "prompt": f"prompt {number}", "baseline_output": "one two three",
             "target_output": "one two four" if number < divergent else "one two three",
             "exact_match": number >= divergent, "first_divergence_index": 2 if number < divergent else None}
            for number in range(100)
        ]  # fmt: skip
        (folder / f"{name}.json").write_bytes(msgspec.json.encode({"schema_version": 2, "results": results}))
