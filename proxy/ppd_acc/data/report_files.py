"""Reports as files: ours, and what the published tool wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ppd_acc.data.report import BY_OTHER_RULES, REPORT_VERSION, SAME_TOKENS, Flip, Report, Sample, Side
from ppd_acc.files import write_whole
from ppd_acc.outcome import Mistake
from ppd_accuracy.answers.said import differences


class _Published(msgspec.Struct):
    """A result of the published tool's report, schema 2: no tokens, no logprobs; its index counts words."""

    sample_id: str | int
    prompt: str = ""
    baseline_output: str | None = ""
    target_output: str | None = ""
    exact_match: bool = False
    first_divergence_index: int | None = None
    classification: str = "unknown"
    logprob_gap: float | None = None
    context_length: int | None = None
    baseline_finish_reason: str | None = None
    target_finish_reason: str | None = None


class _PublishedReport(msgspec.Struct):
    results: list[_Published]
    schema_version: int = 1


_report = msgspec.json.Decoder(Report)
_published = msgspec.json.Decoder(_PublishedReport)


def write_report(report: Report, path: Path, flag: str) -> None:
    """Writes it whole or not at all. Raises Trouble, which names the flag."""
    write_whole(path, (msgspec.json.format(msgspec.json.encode(report), indent=1), b"\n"), flag)


def read_report(path: str | Path, flag: str) -> Report:
    """A report of ours or the published tool's. Raises Mistake, which names the flag."""
    try:
        body = Path(path).read_bytes()
    except OSError as error:
        raise Mistake(f"{flag} {path}: {error.strerror or error}") from None
    return report_of(body, f"{flag} {path}")


def report_of(body: bytes, name: str) -> Report:
    """As `read_report`, from bytes; `name` is what messages call it."""
    try:
        head = msgspec.json.decode(body)
        if not isinstance(head, dict):
            raise Mistake(f"{name}: not a batch report: {type(head).__name__} instead of an object")
        if "results" in head:
            return _from_published(_published.decode(body), name)
        if head.get("kind") != "batch-compare" or "samples" not in head:
            raise Mistake(f"{name}: kind is {head.get('kind')!r}; it must be a report that batch-compare wrote")
        if not isinstance(head.get("version"), int) or head["version"] > REPORT_VERSION:
            raise Mistake(f"{name}: version is {head.get('version')!r}; this program reads up to {REPORT_VERSION}")
        report = _report.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Mistake(f"{name}: not a batch report: {error}") from None
    twice = _first_twice([sample.sample_id for sample in report.samples])
    if twice is not None:
        raise Mistake(f"{name}: sample_id {twice!r} is there twice; ids must be unique")
    return _read_again(report)


def _read_again(report: Report) -> Report:
    """Older programs, and others, called answers equal by the names of their tokens or by their content alone."""
    changed = [sample for sample in report.samples if _is_judged_anew(sample)]
    if not changed:
        return report
    return msgspec.structs.replace(report, totals=None, gate={})


def _is_judged_anew(sample: Sample) -> bool:
    """Gives an equal sample another status where what it keeps of both answers says so. Of a proxy's sample the
    baseline's text is not kept, and what was made equal by rules stays equal."""
    by_rule = any(tag.startswith("equal-by") for tag in sample.tags) or "method" in sample.metadata
    sides = sample.baseline, sample.target
    one, other = (side.said for side in sides)
    is_kept = all(not side.tokens or not said.is_empty for side, said in zip(sides, (one, other), strict=True))
    if sample.status != "equal" or by_rule or not is_kept:
        return False
    sample.differences = differences(one, other)
    if sample.differences:
        has_same_ids = sample.baseline.ids is not None and sample.baseline.tokens == sample.target.tokens
        sample.status = "real" if has_same_ids else "unclassified"
        sample.tags = [*sample.tags, *([SAME_TOKENS] if has_same_ids else [])]
    elif one.is_empty and not sample.compared_tokens:
        sample.status = "empty"
    return sample.status != "equal"


def _from_published(told: _PublishedReport, name: str) -> Report:
    if told.schema_version > 2:
        raise Mistake(f"{name}: schema_version is {told.schema_version}; this program reads up to 2")
    samples = [_from_result(each) for each in told.results]
    twice = _first_twice([sample.sample_id for sample in samples])
    if twice is not None:
        raise Mistake(f"{name}: sample_id {twice!r} is there twice; ids must be unique")
    return _read_again(Report(samples=samples, imported_from=f"xpyd-acc schema {told.schema_version}"))


def _from_result(told: _Published) -> Sample:
    """Its classification is of one engine's gap at a word's number, so it is not taken over."""
    position = told.first_divergence_index if told.first_divergence_index is not None else 0
    return Sample(
        sample_id=str(told.sample_id),
        status="equal" if told.exact_match else "unclassified",
        unit="words",
        prompt=told.prompt,
        baseline=_side(told.baseline_output, told.baseline_finish_reason),
        target=_side(told.target_output, told.target_finish_reason),
        flip=None if told.exact_match else Flip(position=position),
        tags=[BY_OTHER_RULES] if told.exact_match and told.baseline_output != told.target_output else [],
        has_same_finish=told.baseline_finish_reason == told.target_finish_reason,
        metadata={"classification": told.classification, "context_words": told.context_length},
    )


def _side(text: str | None, finish_reason: str | None) -> Side:
    return Side(text=text or "", tokens=[*(text or "").split()], finish_reason=finish_reason)


def _first_twice(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            return each
        seen.add(each)
    return None
