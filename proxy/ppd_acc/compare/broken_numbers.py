"""Logprobs that are no numbers (JSON has null for NaN): an answer with one of them never passes."""

from __future__ import annotations

from ppd_acc.data.report import Sample
from ppd_acc.views import counted

BASELINE_BROKEN = "baseline-not-a-number"
TARGET_BROKEN = "target-not-a-number"


def judge_broken_numbers(sample: Sample) -> Sample:
    """Makes a comparison `real` where the target gives no number and the baseline does, `unclassified` where the
    baseline gives none either: then nothing is known. A tag says which. Gives the same sample back."""
    if sample.not_numbers and sample.status != "real":
        is_targets = is_targets_fault(sample)
        sample.status = "real" if is_targets else "unclassified"
        sample.tags.append(TARGET_BROKEN if is_targets else BASELINE_BROKEN)
    return sample


def is_targets_fault(sample: Sample) -> bool:
    """Whether the target gives no number where the baseline does, up to the first difference."""
    end = sample.compared_tokens + (sample.flip is not None)
    pairs = zip(sample.baseline.logprobs[:end], sample.target.logprobs[:end], strict=False)
    return any(theirs is None and mine is not None for mine, theirs in pairs)


def broken_sentence(sample: Sample) -> str:
    """Empty where all are numbers."""
    return counted(sample.not_numbers, "logprob is no number", "logprobs are no numbers") if sample.not_numbers else ""
