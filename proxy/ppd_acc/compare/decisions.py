"""What gates decided, as JSON and as an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ppd_acc.outcome import Exit
from ppd_accuracy.statistics.gates import Decision


def worst(outcomes: Iterable[str]) -> Exit:
    """A single failure fails; a single inconclusive outcome makes the rest inconclusive."""
    found = set(outcomes)
    if "fail" in found:
        return Exit.DIFFERENT
    return Exit.INCONCLUSIVE if "inconclusive" in found else Exit.PASS


def decision_data(decision: Decision) -> dict[str, Any]:
    interval = decision.interval
    return {
        "outcome": decision.outcome,
        "reason": decision.reason,
        "p": decision.p,
        "interval": None if interval is None else {"low": interval.low, "high": interval.high},
        "more_samples": decision.more_samples,
    }
