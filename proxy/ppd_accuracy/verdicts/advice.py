"""Where to look, from what the bad samples have in common: the quick decision guide, computed.

Bad are the rare and far ones, where there are enough of them: near ones are healthy for the most part.

    the connector reports failed or mismatching transfers         -> the transfer
    bad samples have longer prompts than good ones                 -> positions or masks
    same text, other logprobs (and entropy, where that is known)   -> precision lost on the way
    pd bad, direct good                                            -> the transfer, though it reports nothing
    direct bad, pd good                                            -> the decode engine's prefix cache
    both bad, transfers clean                                      -> the decode engines' own sampling or kernels
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from ppd_accuracy.verdicts.scope import Judged
from ppd_accuracy.verdicts.verdicts import Verdict

_SIGNIFICANT = 0.01
_LEAST = 5


def advise(window: Sequence[Judged], verdicts: Mapping[str, Verdict], kv_failures: int) -> str | None:
    """One sentence for a scope that is amber or red; None while too little is known. `kv_failures` are transfers that
    the connectors reported as failed by checksum or mismatch in the same time."""
    rejected = [judged for judged in window if judged.category in ("rare", "far")]
    bad = rejected if len(rejected) >= _LEAST else [judged for judged in window if judged.category != "within"]
    if len(bad) < _LEAST:
        return None
    if kv_failures:
        return f"transfers fail ({kv_failures} by checksum or mismatch): look at the network and the KV connector"
    good = [judged for judged in window if judged.category == "within"]
    if good and _are_larger([j.prompt_tokens for j in bad], [j.prompt_tokens for j in good]):
        return "it grows with the prompt: look at positions, masks and block tables of long contexts"
    if all(judged.outcome == "drift" and judged.is_same_text for judged in bad):
        by = _entropy_change(bad, good)
        return f"same text with other logprobs{by}: look for precision lost on the way (KV in 8 bits, another kernel)"
    pd, direct = verdicts.get("route:pd"), verdicts.get("route:direct")
    if pd == "red" and direct == "green":
        return "only handed-over turns are bad: look at the KV transfer (compare dumps with ppd-acc check-kv)"
    if direct == "red" and pd == "green":
        return "only direct turns are bad: look at the decode engine's prefix cache"
    if pd == "red" and direct == "red":
        return "both routes are bad with clean transfers: look at the decode engines' sampling and kernels"
    return "look at the KV of both engines first (ppd-acc check-kv), then at the decode engine"


def _entropy_change(bad: Sequence[Judged], good: Sequence[Judged]) -> str:
    """By how much the bad answers' entropy changed beyond that of the good ones; nothing where that may be chance."""
    changed, usual = (
        [each.entropy_change for each in group if each.entropy_change is not None] for group in (bad, good)
    )
    if len(changed) < _LEAST or len(usual) < _LEAST:
        return ""
    if not (_are_larger(changed, usual) or _are_larger(usual, changed)):
        return ""
    return f" (entropy {fmean(changed) - fmean(usual):+.2g} nats a token)"


def _are_larger(ones: Sequence[float], others: Sequence[float]) -> bool:
    """One-sided Mann-Whitney test by its normal approximation, with the correction for ties."""
    values = np.array([*ones, *others], dtype=float)
    order, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    n, m, total = len(ones), len(others), len(values)
    if len(order) < 2:
        return False
    statistic = ranks[:n].sum() - n * (n + 1) / 2 - n * m / 2
    ties = float((counts.astype(float) ** 3 - counts).sum())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    return bool(0.5 * math.erfc(statistic / math.sqrt(2 * variance)) < _SIGNIFICANT)
