"""Reports made of nothing but numbers, for tests of what reads them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from ppd_acc.data.report import Dataset, EngineInfo, Flip, Forced, Noise, Report, Sample, Side, Status
from ppd_acc.data.totals import totals_of

NOISE = Noise(
    answers=20, flips=1, tokens=1200, largest_shift=0.05, largest_delta=0.02,
    delta_quantiles={"p50": 0.001, "p90": 0.005, "p99": 0.012},
)  # fmt: skip
_SHIFTS: dict[str, tuple[float, float]] = {"tie": (0.01, 0.02), "real": (3.0, 1.5), "unclassified": (0.2, 0.1)}


def sample(
    sample_id: str, status: Status = "equal", *, at: int = 3, tokens: int = 12, prompt_tokens: int = 10,
    target_tokens: int | None = None, **more: Any
) -> Sample:  # fmt: skip
    """Answers of `tokens` tokens, each a word; those of a divergent sample differ from `at` on."""
    if status == "error":
        return Sample(
            sample_id=sample_id, status="error", prompt="a prompt", error="http://pd answered 500: out of memory",
            error_reason="status_500", failed="target", **more,
        )  # fmt: skip
    lots = random.Random(sample_id)
    deltas = [abs(lots.gauss(0, 0.004)) for _ in range(tokens)]
    logprobs: list[float | None] = [-0.3 for _ in range(tokens)]
    others: list[float | None] = [-0.3 - delta for delta in deltas]
    names = [f" word{number}" for number in range(tokens)]
    theirs = [*names[:at], *(f" other{number}" for number in range(at, tokens))] if status != "equal" else names
    one, other = _SHIFTS.get(status, (None, None))
    if target_tokens is not None:
        theirs, others = theirs[:target_tokens], others[:target_tokens]
    told: dict[str, Any] = {
        "prompt": "a prompt of some words",
        "prompt_tokens": prompt_tokens,
        "baseline": Side(text="".join(names), tokens=[*names], logprobs=logprobs, finish_reason="stop", total_ms=12.5),
        "target": Side(text="".join(theirs), tokens=[*theirs], logprobs=others, finish_reason="stop"),
        "compared_tokens": tokens if status == "equal" else at,
        "max_delta": max(deltas[: tokens if status == "equal" else max(1, at)], default=None),
        "max_delta_at": 0,
    }
    if status != "equal":
        told["flip"] = Flip(
            position=at, baseline_token=names[at], target_token=theirs[at], baseline_margin=one, target_margin=other,
            shift=(one or 0) + (other or 0), chance=0.4 if status == "tie" else 0.0008,
        )  # fmt: skip
        told["forced"] = Forced(
            tokens=tokens, mean_delta=0.01, max_delta=1.5, max_delta_at=at, likelihood_delta=1.7, token_accuracy=0.9
        )
    return Sample(sample_id=sample_id, status=status, **{**told, **more})


def report(samples: Sequence[Sample] = (), **more: Any) -> Report:
    told: dict[str, Any] = {
        "tool": "ppd-acc 1.2.3",
        "created_at": 1_790_000_000.0,
        "settings": {"temperature": 0.0, "seed": 42, "max_tokens": 64},
        "baseline": EngineInfo(url="http://aggregated:8000", model="tiny"),
        "target": EngineInfo(url="http://pd-endpoint:8001", model="tiny"),
        "datasets": [Dataset(path="prompts.jsonl", sha256="ab" * 32, samples=len(samples))],
        "noise": NOISE,
        "totals": totals_of(each.status for each in samples),
        "samples": [*samples],
    }
    return Report(**{**told, **more})


def mixed(count: int = 60) -> Report:
    """Some of every status, with prompts of 10 to 2,000 tokens."""
    lots = random.Random(11)
    statuses: list[Status] = ["equal"] * 14 + ["tie"] * 3 + ["real", "unclassified", "error"]
    samples = [
        sample(
            f"s{number}", statuses[number % len(statuses)], at=lots.randrange(11), tokens=lots.choice((12, 18)),
            prompt_tokens=int(10 * 2 ** lots.uniform(0, 7.6)),
            target_tokens=(11, 12, None)[number % 3] if number % len(statuses) >= 14 else None,
        )
        for number in range(count)
    ]  # fmt: skip
    return report(samples)


def encoded(told: Report) -> bytes:
    """As batch-compare writes it."""
    return msgspec.json.encode({"kind": "batch-compare", "version": 1, **msgspec.to_builtins(told)})


def published(*results: dict[str, Any]) -> bytes:
    """As the published tool writes it: words and no logprobs."""
    return msgspec.json.encode({"schema_version": 2, "total_samples": len(results), "results": [*results]})
