"""Whether the newest run of a kind is worse than those before it. Pure: runs in, a judgement out.

Paired by sample ids. Against one earlier run the test is McNemar's, exact; against several, a sign-flip permutation
test of each sample's status minus its mean over the earlier runs, so that a sample that always wavers counts little.
Runs without a common id are compared with the one before by Fisher's test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from ppd_acc.data.report import Status
from ppd_accuracy.statistics import gates
from ppd_accuracy.statistics.gates import Decision
from ppd_accuracy.statistics.significance import sign_flip

Statuses = Mapping[str, Status]


def hits_of(statuses: Statuses, bad: Sequence[Status]) -> dict[str, bool]:
    """By id, without those that were not compared."""
    return {name: status in bad for name, status in statuses.items() if status not in ("error", "empty")}


def judge(earlier: Sequence[Mapping[str, bool]], latest: Mapping[str, bool], alpha: float, seed: int) -> Decision:
    """`earlier` runs, the oldest first, against the latest one; each says by id whether the sample was bad."""
    if not earlier:
        return Decision(outcome="inconclusive", reason="one run; a trend needs two")
    before = earlier[-1]
    common = [name for name in latest if name in before]
    if not common:
        return gates.unpaired(sum(before.values()), len(before), sum(latest.values()), len(latest), alpha)
    worse = sum(latest[name] and not before[name] for name in common)
    better = sum(before[name] and not latest[name] for name in common)
    both = sum(before[name] and latest[name] for name in common)
    against_last = gates.paired(worse, better, both, len(common), alpha)
    if len(earlier) == 1:
        return against_last
    return _against_all(earlier, latest, alpha, seed, against_last)


def _against_all(
    earlier: Sequence[Mapping[str, bool]], latest: Mapping[str, bool], alpha: float, seed: int, last: Decision
) -> Decision:
    changes = [
        float(is_bad) - fmean(run[name] for run in earlier if name in run)
        for name, is_bad in latest.items()
        if any(name in run for run in earlier)
    ]
    change = fmean(changes)
    p = sign_flip(changes, seed).p
    seen = f"{sum(latest.values())} of {len(latest)} against {len(earlier)} earlier runs, rate {change:+.2%}"
    if not any(changes):
        return Decision(outcome="pass", reason=f"{seen}: no sample changed", p=p, interval=last.interval)
    if p <= alpha:
        word = "worse" if change > 0 else "better"
        return Decision(
            outcome="fail" if change > 0 else "pass",
            reason=f"{seen}, sign-flip p {p:.4f}: the newest run is significantly {word}",
            p=p,
            interval=last.interval,
        )
    return Decision(
        outcome="inconclusive",
        reason=f"{seen}, sign-flip p {p:.4f}: inconclusive",
        p=p,
        interval=last.interval,
        more_samples=last.more_samples,
    )
