"""The KV dumps of `diagnose`: whether they are the same, as check-kv judges it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppd_acc.outcome import Mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumps:
    """`max_abs` is the largest difference that passes, `cosine` the smallest cosine; None: what rounding allows."""

    baseline: Path
    target: Path
    max_abs: float | None
    cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KvOutcome:
    """`statement` is for people, `data` for JSON."""

    is_match: bool
    statement: str
    data: dict[str, Any]


def check_kv(dumps: Dumps) -> KvOutcome:
    """Raises Mistake for a file that is no dump."""
    from ppd_acc.kv.check import Options, check_dumps
    from ppd_acc.kv.files import KvFileError
    from ppd_accuracy.kv.tolerance import Tolerance

    try:
        limits = Tolerance(max_abs=dumps.max_abs, cosine=dumps.cosine)
        report = check_dumps(dumps.baseline, dumps.target, Options(limits=limits))
    except KvFileError as error:
        raise Mistake(f"--kv-baseline, --kv-target: {error}") from None
    worst = [{"name": each.name, "status": each.status, "reason": each.reason} for each in report.different]
    statement = f"{len(report.checked)} arrays, {len(worst)} different"
    if report.prompts:
        statement += f"; {report.prompts}"
    elif worst:
        statement += f"; the first is {worst[0]['name']}: {worst[0]['reason']}"
    data = {
        "is_match": report.is_match, "arrays": len(report.checked), "different": worst, "prompts": report.prompts,
        "notes": list(report.notes),
    }  # fmt: skip
    return KvOutcome(is_match=report.is_match, statement=statement, data=data)
