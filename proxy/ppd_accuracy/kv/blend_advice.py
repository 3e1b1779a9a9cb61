"""Which recompute ratio CacheBlend should use: the rules of its troubleshooting guide, on measured numbers.

The guide: when the quality drops, raise the ratio to 0.25, try other check layers, check the suffix length; when the
time to first token does not improve, lower the ratio to 0.10, mind short inputs and slow KV loading. Here a drop is
measured, or follows from low coverage: most of what is wrong with the reused KV would stay.
"""

from __future__ import annotations

from dataclasses import dataclass

from ppd_accuracy.kv.blend import LOWERED_RATIO, RAISED_RATIO, Blend
from ppd_accuracy.kv.timings import Timings

LEAST_COVERAGE = 0.5
"""Below this share of the deviation, most of what is wrong stays."""
QUALITY_DROP = 0.02
"""A measured loss (of F1 or Rouge-L, say) up to this is taken for none."""
IMPROVED = 0.9
"""A time to first token above this share of a full prefill's is no improvement."""
DOMINANT = 0.5
SHORT_TOKENS = 1000
"""Shorter prompts gain little."""
_BETTER_LAYER = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """`ratio` to use, and why; `reasons` also holds what else to change."""

    ratio: float
    reasons: tuple[str, ...]


def recommend(view: Blend, *, timings: Timings | None = None, quality_drop: float | None = None) -> Recommendation:
    """`quality_drop` is how much lower a measured score (0 to 1) is than with full prefill, None if not measured."""
    ratio, coverage = view.ratio, view.coverages[view.ratio]
    reasons = [f"at {ratio:g} the chosen tokens cover {coverage:.0%} of the other layers' deviation"]
    has_dropped = quality_drop is not None and quality_drop > QUALITY_DROP
    is_low = coverage < LEAST_COVERAGE
    if has_dropped:
        reasons.append(f"quality dropped by {quality_drop:g}, more than {QUALITY_DROP:g}")
    if is_low:
        reasons.append(f"coverage is under {LEAST_COVERAGE:.0%}: quality will drop")
    is_slow = timings is not None and _is_slow(timings, reasons)
    if has_dropped or is_low:
        wanted = max(ratio, RAISED_RATIO)
        raised = view.coverages.get(wanted, coverage)
        if wanted > ratio:
            reasons.append(f"raise the ratio to {wanted:g}: it covers {raised:.0%}")
        else:
            reasons.append(f"the ratio is {ratio:g} already: look at check layers and suffix length instead")
        reasons += _other_causes(view)
        if is_slow:
            reasons.append(
                "raising it makes the time to first token worse: with this KV full prefill may be the answer"
            )
        return Recommendation(ratio=wanted, reasons=tuple(reasons))
    if is_slow and ratio > LOWERED_RATIO:
        lowered = view.coverages[LOWERED_RATIO]
        if lowered < LEAST_COVERAGE:
            reasons.append(f"{LOWERED_RATIO:g} would cover only {lowered:.0%}: keep {ratio:g}")
        else:
            reasons.append(f"lower the ratio to {LOWERED_RATIO:g}: it still covers {lowered:.0%}")
            ratio = LOWERED_RATIO
    else:
        reasons.append(f"keep {ratio:g}")
    if is_slow and view.tokens < SHORT_TOKENS:
        reasons.append(f"the prompt has {view.tokens} tokens; under {SHORT_TOKENS} CacheBlend gains little")
    return Recommendation(ratio=ratio, reasons=tuple(reasons))


def _is_slow(timings: Timings, reasons: list[str]) -> bool:
    """Whether a lower ratio could help: no improvement over full prefill, and the recompute is what takes the time."""
    total = timings.total_s
    if not total:
        return False
    name, longest = max(timings.parts, key=lambda part: part[1])
    full = timings.full_prefill_s
    if full is not None:
        reasons.append(f"time to first token is {total:.3g} s, a full prefill's {full:.3g} s")
        if total <= IMPROVED * full:
            return False
    elif timings.recompute_s < DOMINANT * total and timings.load_s < DOMINANT * total:
        return False
    reasons.append(f"most of the time to first token is {name}: {longest:.3g} of {total:.3g} s")
    if longest == timings.load_s:
        reasons.append("a lower ratio does not help KV loading: keep KV in GPU memory, else CPU memory, else SSD")
        return False
    return longest == timings.recompute_s


def _other_causes(view: Blend) -> list[str]:
    layer, coverage = view.best_layer
    reasons = []
    if layer not in [selection.layer for selection in view.selections]:
        if coverage > view.coverages[view.ratio] + _BETTER_LAYER:
            reasons.append(f"check layer {layer} chooses better: {coverage:.0%} at {view.ratio:g}")
    if not view.suffix_len:
        reasons.append("--suffix-len is 0: it should be the number of the question's tokens")
    return reasons
