"""What the page's pictures show, computed from a report. Pure; errors and empty answers are in no picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ppd_acc.data.report import Report, Sample, Status
from ppd_accuracy.statistics.intervals import Interval, wilson
from ppd_accuracy.statistics.survival import Curve, Watched, even_edges, hazards, kaplan_meier

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_POINTS = 2000
NOT_TOLD = "not told"
_RATE_BINS = 6
_HAZARD_BINS = 6
_POSITION_BINS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`hits` of `total` with Wilson's interval; `value` is None where there is no total."""

    name: str
    hits: int
    total: int
    interval: Interval

    @property
    def value(self) -> float | None:
        return self.hits / self.total if self.total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Points, thinned to a number that a page can hold: the largest, then an even choice of the others. `status` has
    one entry per point where points are samples. `total` is before thinning."""

    x: Floats
    y: Floats
    total: int
    status: tuple[Status, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Quantiles of the values from position `start` to before `stop`."""

    start: int
    stop: int
    count: int
    median: float
    p99: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deltas:
    """|logprob difference| (nats) of every token before the first difference, over all samples."""

    cloud: Cloud
    bands: tuple[Band, ...] = ()
    not_numbers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Both margins (nats) of a first difference; None where an engine did not tell."""

    sample_id: str
    status: Status
    position: int
    baseline: float | None
    target: float | None
    is_bound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """From `low` to `high` (inclusive): the share that differs, and that differs by no tie. Of prompts of that length,
    or of tokens at these positions."""

    low: int
    high: int
    divergent: Share
    real: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceBin:
    """Length differences (target - baseline, inclusive); `cut` of `count` have a side that ended at max_tokens."""

    low: int
    high: int
    count: int
    cut: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """`same` answers are equally long; the others are in `bins`. `mean` is over all, the censored ones as they are."""

    same: int
    bins: tuple[DifferenceBin, ...] = ()
    mean: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishes:
    """Counts by (baseline's reason, target's reason)."""

    reasons: tuple[str, ...]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)


def compared(report: Report) -> list[Sample]:
    return [sample for sample in report.samples if sample.is_compared]


def no_tie(samples: Iterable[Sample]) -> str:
    """What differences are called that are no tie: an unclassified one may be."""
    has_unclassified = any(sample.status == "unclassified" for sample in samples)
    return "real or unclassified differences" if has_unclassified else "real differences"


def shares(report: Report, confidence: float) -> tuple[Share, ...]:
    """Any difference, those that are no tie, and the baseline against itself."""
    samples = compared(report)
    divergent = sum(sample.is_divergent for sample in samples)
    ties = sum(sample.status == "tie" for sample in samples)
    noise = report.noise
    return (
        _share("Answers that differ", divergent, len(samples), confidence),
        _share(no_tie(samples).capitalize(), divergent - ties, len(samples), confidence),
        _share("Noise floor: baseline asked again", noise.flips, noise.answers, confidence),
    )


def survival(samples: Sequence[Sample], confidence: float, *, is_tie_counted: bool) -> Curve:
    """Of all first differences, or of those that are no tie; then an answer is watched up to its tie."""
    return kaplan_meier(_watched(samples, is_tie_counted=is_tie_counted), confidence)


def hazard_bins(samples: Sequence[Sample], confidence: float, bins: int = _HAZARD_BINS) -> list[Bin]:
    """The chance per token to be the first that differs. Position 0, the prefill's token, is a bin of its own; the
    others have about as many compared tokens each."""
    every = _watched(samples, is_tie_counted=True)
    real = _watched(samples, is_tie_counted=False)
    edges = sorted({0, 1, *even_edges(every, bins)})
    found = zip(hazards(every, edges, confidence), hazards(real, edges, confidence), strict=True)
    return [
        Bin(
            low=each.start,
            high=each.stop - 1,
            divergent=_share("differ", each.diverged, each.exposure_tokens, confidence),
            real=_share(no_tie(samples), other.diverged, other.exposure_tokens, confidence),
        )
        for each, other in found
        if each.exposure_tokens
    ]


def _watched(samples: Sequence[Sample], *, is_tie_counted: bool) -> list[Watched]:
    watched = []
    for sample in samples:
        position = sample.first_divergence
        if position is None:
            watched.append(Watched(equal_tokens(sample), False))
        else:
            watched.append(Watched(position, is_tie_counted or sample.status != "tie"))
    return watched


def equal_tokens(sample: Sample) -> int:
    """Of a sample without a known first difference: how many tokens are surely the same."""
    if sample.is_divergent:
        return sample.compared_tokens
    return sample.compared_tokens or len(sample.baseline.tokens)


def deltas_by_position(samples: Iterable[Sample], most: int = MOST_POINTS) -> Deltas:
    positions, values = [], []
    not_numbers = 0
    for sample in samples:
        found = token_deltas(sample)
        is_number = np.isfinite(found)
        not_numbers += int((~is_number).sum())
        positions.append(np.flatnonzero(is_number))
        values.append(found[is_number])
    if not values or not sum(map(len, values)):
        return Deltas(cloud=_cloud(np.array([]), np.array([]), most), not_numbers=not_numbers)
    x, y = np.concatenate(positions).astype(float), np.concatenate(values)
    return Deltas(cloud=_cloud(x, y, most), bands=_bands(x, y), not_numbers=not_numbers)


def token_deltas(sample: Sample) -> Floats:
    """|logprob difference| of the tokens before the first difference, NaN where an engine gave no number; empty where
    one gave no logprobs."""
    one, other = sample.baseline.logprobs, sample.target.logprobs
    count = min(sample.compared_tokens, len(one), len(other))
    if sample.unit != "tokens" or not count:
        return np.array([], dtype=float)
    mine, theirs = (np.array(each[:count], dtype=float) for each in (one, other))  # None becomes NaN
    with np.errstate(invalid="ignore"):  # two infinities
        found: Floats = np.abs(mine - theirs)
    return found


def deltas_by_prompt(samples: Sequence[Sample], unit: str, most: int = MOST_POINTS) -> Cloud:
    """The largest |logprob difference| of each sample by its prompt's length."""
    known = [
        (length, sample.max_delta, sample.status)
        for sample in samples
        if (length := prompt_length(sample, unit)) is not None
        and sample.max_delta is not None
        and math.isfinite(sample.max_delta)
    ]
    x, y = (np.array([each[place] for each in known], dtype=float) for place in (0, 1))
    kept = _kept(y, most)
    return Cloud(x=x[kept], y=y[kept], total=len(y), status=tuple(known[index][2] for index in kept.tolist()))


def length_unit(samples: Sequence[Sample]) -> Literal["tokens", "words"]:
    """Tokens where every prompt's are known, else words."""
    return "tokens" if samples and all(sample.prompt_tokens is not None for sample in samples) else "words"


def prompt_length(sample: Sample, unit: str) -> int | None:
    if unit == "tokens":
        return sample.prompt_tokens
    if sample.prompt is not None:
        return len(sample.prompt.split())
    if sample.messages is not None:
        return sum(len(str(message.get("content") or "").split()) for message in sample.messages)
    return None


def margins(samples: Iterable[Sample]) -> list[Margin]:
    """Of the first differences whose margins are known on one side at least; the largest shifts first."""
    found = [
        Margin(
            sample_id=sample.sample_id,
            status=sample.status,
            position=sample.flip.position,
            baseline=sample.flip.baseline_margin,
            target=sample.flip.target_margin,
            is_bound=sample.flip.is_bound,
        )
        for sample in samples
        if sample.flip is not None and _is_known(sample.flip.baseline_margin, sample.flip.target_margin)
    ]
    return sorted(found, key=lambda each: -((each.baseline or 0.0) + (each.target or 0.0)))


def _is_known(*margins: float | None) -> bool:
    told = [each for each in margins if each is not None]
    return bool(told) and all(math.isfinite(each) for each in told)


def rates_by_length(samples: Sequence[Sample], unit: str, confidence: float, bins: int = _RATE_BINS) -> list[Bin]:
    """Bins with about as many samples in each; prompts of one length are never in two bins."""
    known = [(length, sample) for sample in samples if (length := prompt_length(sample, unit)) is not None]
    if not known:
        return []
    lengths = np.array([length for length, _ in known])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, bins + 1), method="higher"))
    places = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, max(0, len(edges) - 2))
    found = []
    for place in range(max(1, len(edges) - 1)):
        inside = [known[index] for index in np.flatnonzero(places == place).tolist()]
        if not inside:
            continue
        divergent = sum(sample.is_divergent for _, sample in inside)
        ties = sum(sample.status == "tie" for _, sample in inside)
        found.append(
            Bin(
                low=min(length for length, _ in inside),
                high=max(length for length, _ in inside),
                divergent=_share("differ", divergent, len(inside), confidence),
                real=_share(no_tie(samples), divergent - ties, len(inside), confidence),
            )
        )
    return found


def length_differences(samples: Sequence[Sample], most: int = 25) -> Differences:
    """Target's tokens minus baseline's; the bins leave out those that are 0, which are counted apart."""
    told = [
        (len(sample.target.tokens) - len(sample.baseline.tokens), "length" in _finish(sample)) for sample in samples
    ]
    others = [(difference, is_cut) for difference, is_cut in told if difference]
    if not others:
        return Differences(same=len(told))
    values = np.array([difference for difference, _ in others])
    reach = int(np.abs(values).max())
    width = next(width for width in _widths() if 2 * math.ceil(max(0.0, reach - width / 2) / width) + 1 <= most)
    places = np.floor((values + width // 2) / width).astype(int)
    counts = Counter(places.tolist())
    cuts = Counter(place for place, (_, is_cut) in zip(places.tolist(), others, strict=True) if is_cut)
    bins = tuple(
        DifferenceBin(
            low=place * width - width // 2, high=place * width + width // 2, count=counts[place], cut=cuts[place]
        )
        for place in range(min([*counts, -1]), max([*counts, 1]) + 1)
    )
    return Differences(same=len(told) - len(others), bins=bins, mean=float(np.mean([each for each, _ in told])))


def finishes(samples: Iterable[Sample]) -> Finishes:
    counts = Counter(_finish(sample) for sample in samples)
    reasons = sorted({reason for pair in counts for reason in pair})
    return Finishes(reasons=tuple(reasons), counts=counts)


def _finish(sample: Sample) -> tuple[str, str]:
    return sample.baseline.finish_reason or NOT_TOLD, sample.target.finish_reason or NOT_TOLD


def _widths() -> Iterable[int]:
    """Odd, so that 0 is in the middle: 1, 3, 5, 11, 21, 51, 101, ..."""
    yield from (1, 3, 5)
    power = 10
    while True:
        yield from (power + 1, 2 * power + 1, 5 * power + 1)
        power *= 10


def _share(name: str, hits: int, total: int, confidence: float) -> Share:
    return Share(name=name, hits=hits, total=total, interval=wilson(hits, total, confidence))


def _cloud(x: Floats, y: Floats, most: int) -> Cloud:
    kept = _kept(y, most)
    return Cloud(x=x[kept], y=y[kept], total=len(y))


def _kept(values: Floats, most: int) -> Ints:
    """Indices: half of `most` for the largest, half spread evenly over the others."""
    if len(values) <= most:
        return np.arange(len(values))
    order = np.argsort(-values, kind="stable")
    largest, others = order[: most // 2], np.sort(order[most // 2 :])
    spread = np.linspace(0, len(others) - 1, most - len(largest)).astype(int)
    return np.sort(np.concatenate([largest, others[spread]]))


def _bands(x: Floats, y: Floats) -> tuple[Band, ...]:
    stop = int(x.max()) + 1
    edges = np.unique(np.linspace(0, stop, min(stop, _POSITION_BINS) + 1).astype(int))
    order = np.argsort(x, kind="stable")
    sorted_x, sorted_y = x[order], y[order]
    cuts = np.searchsorted(sorted_x, edges)
    found = []
    for low, high, first, last in zip(edges, edges[1:], cuts, cuts[1:], strict=False):
        inside = sorted_y[first:last]
        if len(inside):
            median, p99 = np.quantile(inside, (0.5, 0.99))
            found.append(
                Band(
                    start=int(low), stop=int(high), count=len(inside), median=float(median), p99=float(p99),
                    largest=float(inside.max()),
                )
            )  # fmt: skip
    return tuple(found)
