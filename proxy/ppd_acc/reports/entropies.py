"""Entropies of answers of which engines tell the likeliest tokens only, and whether one engine's are higher. Pure.

Of each position three figures, in nats: bounds of the entropy (ppd_accuracy/answers/distributions.py), and `bucket`,
the entropy with everything that is not listed as one token. `bucket` is a lower bound that needs no assumption; it is
what two engines are compared by, as far as the bounds allow, which differ by the unknown rest only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

import msgspec
import numpy as np

from ppd_acc.data.report import Sample, Side
from ppd_accuracy.answers.distributions import bucket_entropy, entropy, rest_mass
from ppd_accuracy.statistics.significance import Mean, student

Top = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """Of one position. `rest` is the probability of all that is not listed."""

    low: float
    high: float
    bucket: float
    rest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Entropies of one answer, None where nothing was listed. `dropped` logprobs were no finite numbers."""

    positions: tuple[Entropy | None, ...]
    dropped: int = 0

    @property
    def known(self) -> list[Entropy]:
        return [each for each in self.positions if each is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Target minus baseline. `change` is of the bucket entropies, within the bounds; Student's interval is over units:
    samples where there are several, else positions. `low` and `high` bound the mean change of the true entropies."""

    unit: str
    positions: int
    change: Mean
    low: float
    high: float


def _change(baseline: Entropy, target: Entropy) -> float:
    """Of the bucket entropies, moved into what the bounds allow: mass that leaves a list makes its bucket entropy
    smaller, and the true one larger."""
    low, high = target.low - baseline.high, target.high - baseline.low
    return min(max(target.bucket - baseline.bucket, low), high)


class _Spread(msgspec.Struct):
    positions: Annotated[int, msgspec.Meta(ge=1)]
    entropy_change: float
    entropy_low: float
    entropy_high: float


def entropy_of(top: Top, vocabulary: int, *, is_ranked: bool) -> Entropy | None:
    """`is_ranked`: the list has the likeliest tokens, so that no other one is likelier than the least of them."""
    if not top:
        return None
    bucket = bucket_entropy(top)
    bounds = entropy(top, vocabulary)
    low = max(bucket, bounds.low) if is_ranked else bucket
    return Entropy(low=low, high=max(bounds.high, low), bucket=bucket, rest=rest_mass(top))


def series_of(tops: Sequence[Top], vocabulary: int, *, is_ranked: bool = True) -> Series:
    """One answer."""
    finite = [{token: value for token, value in top.items() if math.isfinite(value)} for top in tops]
    return Series(
        positions=tuple(entropy_of(top, vocabulary, is_ranked=is_ranked) for top in finite),
        dropped=sum(map(len, tops)) - sum(map(len, finite)),
    )


def side_series(side: Side, vocabulary: int) -> Series:
    """Of one side of a sample. Without lists of likely tokens, the chosen ones are all that is listed."""
    if side.tops:
        return series_of(side.tops, vocabulary)
    missing = sum(each is None for each in side.logprobs)
    tops = [{} if each is None else {"chosen": each} for each in side.logprobs]
    found = series_of(tops, vocabulary, is_ranked=False)
    return Series(positions=found.positions, dropped=found.dropped + missing)


def shared_positions(sample: Sample) -> int:
    """Positions with the same context on both engines: those up to and including the first difference, and all of them
    where one engine scored the other's tokens."""
    if sample.metadata.get("method") == "score":
        return sample.compared_tokens
    return sample.compared_tokens if sample.flip is None else min(sample.compared_tokens, sample.flip.position) + 1


def figures(series: Sequence[Series]) -> dict[str, object]:
    """Of all positions together; `count` of them."""
    known = [each for one in series for each in one.known]
    told: dict[str, object] = {"count": len(known), "dropped": sum(one.dropped for one in series)}
    for name in ("low", "high", "bucket", "rest"):
        values = np.array([getattr(each, name) for each in known], dtype=float)
        shares = (("min", 0.0), ("median", 0.5), ("p95", 0.95), ("max", 1.0))
        quantiles = {key: float(np.quantile(values, share)) if len(values) else None for key, share in shares}
        told[name] = {"mean": float(values.mean()) if len(values) else None, **quantiles}
    return told


def compare(pairs: Sequence[tuple[Series, Series]], confidence: float) -> Comparison | None:
    """Baseline and target of each answer, cut to what they share. None where no position is known on both sides."""
    by_answer = [
        [(one, other) for one, other in zip(mine.positions, theirs.positions, strict=False) if one and other]
        for mine, theirs in pairs
    ]
    known = [answer for answer in by_answer if answer]
    if not known:
        return None
    changes = [[_change(one, other) for one, other in answer] for answer in known]
    units = [fmean(each) for each in changes] if len(known) > 1 else changes[0]
    every = [pair for answer in known for pair in answer]
    return Comparison(
        unit="samples" if len(known) > 1 else "positions",
        positions=len(every),
        change=student(units, confidence),
        low=fmean(other.low - one.high for one, other in every),
        high=fmean(other.high - one.low for one, other in every),
    )


def compare_spreads(samples: Sequence[Sample], confidence: float) -> Comparison | None:
    """The same from what a proxy kept of its samples (ppd_accuracy/answers/spread.py); None where it kept none."""
    told = [spread for sample in samples if (spread := sample.metadata.get("spread")) is not None]
    if not told:
        return None
    try:
        spreads = msgspec.convert(told, list[_Spread])
    except msgspec.ValidationError:
        return None  # a report that somebody else wrote
    positions = sum(each.positions for each in spreads)
    return Comparison(
        unit="samples",
        positions=positions,
        change=student([each.entropy_change for each in spreads], confidence),
        low=math.fsum(each.entropy_low * each.positions for each in spreads) / positions,
        high=math.fsum(each.entropy_high * each.positions for each in spreads) / positions,
    )


def around(series: Series, index: int, window: int) -> dict[str, float | None]:
    """The entropy at `index` and the mean over the positions around it."""
    at = series.positions[index] if index < len(series.positions) else None
    near = [each.bucket for each in series.positions[max(0, index - window) : index + window + 1] if each is not None]
    return {
        "low": at.low if at is not None else None,
        "high": at.high if at is not None else None,
        "bucket": at.bucket if at is not None else None,
        "context_mean": fmean(near) if near else None,
        "context_max": max(near, default=None),
    }
