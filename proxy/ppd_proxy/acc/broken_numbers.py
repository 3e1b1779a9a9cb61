"""Logprobs that are no numbers (JSON has null for NaN): an answer with one of them never passes."""

from __future__ import annotations

from ppd_proxy.acc.reports import Sample


def judge_broken_numbers(sample: Sample) -> Sample:
    """Makes a comparison `real` where the target gives no number and the baseline does, `unclassified` where the
    baseline gives none either: then nothing is known. A tag says which. Gives the same sample back."""
    if sample.not_numbers and sample.status != "real":
        common = sample.compared_tokens
        pairs = zip(sample.baseline.logprobs[:common], sample.target.logprobs[:common], strict=False)
        is_targets = any(theirs is None and mine is not None for mine, theirs in pairs)
        sample.status = "real" if is_targets else "unclassified"
        sample.tags.append("target-not-a-number" if is_targets else "baseline-not-a-number")
    return sample


def broken_sentence(sample: Sample) -> str:
    """Empty where all are numbers."""
    return f"{sample.not_numbers} logprobs are no numbers" if sample.not_numbers else ""
