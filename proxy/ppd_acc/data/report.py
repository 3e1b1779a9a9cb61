"""What comparisons are written as, and reading it again; the published tool's batch reports are read, too.

A report says everything a number was made from: settings, engines, dataset, tokens, logprobs. Schema:
docs/ppd-acc.schema.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from ppd_acc.outcome import Mistake
from ppd_accuracy.answers.flips import Token
from ppd_accuracy.answers.said import Difference, Said, differences, said_of

Status = Literal["equal", "tie", "real", "unclassified", "error", "empty"]
STATUSES: tuple[Status, ...] = ("equal", "tie", "real", "unclassified", "error", "empty")
REPORT_VERSION = 1
LONGER_THAN_FLOOR = "longer-than-floor"
"""Tag of a difference in a prompt longer than all that the noise floor was measured on."""
BY_OTHER_RULES = "equal-by:rules of another program"
"""Tag of texts that differ and were called equal in a report of the published tool, which does not keep its rules."""
SAME_TOKENS = "same-tokens"
"""Tag of two answers that differ though their token ids do not: they were read in two ways."""


class Side(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One engine's answer. `text` is its content. `logprobs` (nats) has one number per token, or is empty. `decision`
    is our proxy's `x-ppd-decision`."""

    text: str = ""
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = []
    tokens: list[Token] = []
    logprobs: list[float | None] = []
    tops: list[dict[str, float]] = []
    finish_reason: str | None = None
    request_id: str | None = None
    total_ms: float | None = None
    first_ms: float | None = None
    decision: str | None = None

    @property
    def said(self) -> Said:
        return said_of(self)

    @property
    def ids(self) -> list[int] | None:
        """The token ids; None where tokens are names or words."""
        ids = [token for token in self.tokens if isinstance(token, int)]
        return ids if ids and len(ids) == len(self.tokens) else None


class Flip(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The first difference: `accuracy.flips.Flip`, its chance under the noise floor, and how many tokens of the floor
    judged it (those of prompts as long), the largest shift of which is `floor_shift`."""

    position: int
    baseline_token: Token | None = None
    target_token: Token | None = None
    baseline_text: str | None = None
    target_text: str | None = None
    baseline_margin: float | None = None
    target_margin: float | None = None
    shift: float | None = None
    is_bound: bool = False
    chance: float | None = None
    floor_tokens: int | None = None
    floor_shift: float | None = None


class Forced(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The target's own tokens, scored by the baseline's prefill: |logprob difference| (nats) over all tokens."""

    tokens: int
    mean_delta: float
    max_delta: float
    max_delta_at: int
    likelihood_delta: float
    token_accuracy: float
    not_numbers: int = 0


class Sample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One prompt on two engines. `prompt` is a text, `messages` a conversation. `flip` is the first token or word that
    differs, None where none does or which one is not told; `differences` are the parts of what was said that differ.
    `compared_tokens` are those before the first difference; `mean_delta` and `max_delta` are of their logprobs. `error`
    says why there is no comparison, `failed` which side; where both answers were empty, there is none either."""

    sample_id: str
    status: Status
    unit: Literal["tokens", "words"] = "tokens"
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    prompt_tokens: int | None = None
    baseline: Side = msgspec.field(default_factory=Side)
    target: Side = msgspec.field(default_factory=Side)
    flip: Flip | None = None
    differences: list[Difference] = []
    compared_tokens: int = 0
    mean_delta: float | None = None
    max_delta: float | None = None
    max_delta_at: int | None = None
    not_numbers: int = 0
    forced: Forced | None = None
    has_same_finish: bool = True
    error: str | None = None
    error_reason: str | None = None
    failed: Literal["baseline", "target"] | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}

    @property
    def is_compared(self) -> bool:
        return self.status not in ("error", "empty")

    @property
    def is_divergent(self) -> bool:
        return self.status in ("tie", "real", "unclassified")

    @property
    def is_unexplained(self) -> bool:
        """Whether the answers differ, and no token or only a word of theirs is known to: no margin may excuse it."""
        has_token = self.flip is not None and self.unit == "tokens"
        return self.status == "unclassified" and bool(self.differences) and not has_token

    @property
    def longest(self) -> int:
        """Tokens, or words, of the longer answer."""
        return max(len(self.baseline.tokens), len(self.target.tokens))

    @property
    def question(self) -> str:
        """The prompt's text, or the conversation's last message."""
        if self.prompt is not None:
            return self.prompt
        return str(self.messages[-1].get("content") or "") if self.messages else ""

    @property
    def place(self) -> str | None:
        """Where the first difference is, in words; None where there is none."""
        return None if self.flip is None else f"{self.unit[:-1]} {self.flip.position}"

    @property
    def first_divergence(self) -> int | None:
        """Token position from 0; None where the answers are equal or there are none."""
        return self.flip.position if self.flip is not None else None


class Noise(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The noise floor in numbers: a `ReplayNoise` without its lists, and their quantiles. `longest_prompt` is in
    tokens, None where unknown; `failed` answers were not measured, the first because of `failure`."""

    answers: int = 0
    failed: int = 0
    failure: str | None = None
    flips: int = 0
    tokens: int = 0
    broken: int = 0
    longest_prompt: int | None = None
    largest_shift: float | None = None
    largest_delta: float | None = None
    delta_quantiles: dict[str, float] = {}


class EngineInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    url: str
    model: str | None = None
    version: str | None = None


class Dataset(msgspec.Struct, kw_only=True, omit_defaults=True):
    path: str
    sha256: str
    samples: int


class Interval(msgspec.Struct, kw_only=True):
    low: float
    high: float


class Totals(msgspec.Struct, kw_only=True):
    """Counts by status; `rate` is the share of divergent ones among those that were compared, with a Wilson interval.
    `real_rate` likewise of `real` ones alone: neither ties nor unclassified ones are in it. Of two `empty` answers
    nothing was compared."""

    samples: int
    compared: int
    equal: int
    tie: int
    real: int
    unclassified: int
    error: int
    confidence: float
    rate: float | None
    rate_interval: Interval
    real_rate: float | None
    real_interval: Interval
    empty: int = 0


def told_statuses(totals: Totals) -> tuple[Status, ...]:
    """All of them; `empty` is told only where there are such answers."""
    return tuple(status for status in STATUSES if status != "empty" or totals.empty)


class Report(msgspec.Struct, kw_only=True):
    """What batch-compare writes. `settings` are the effective ones."""

    kind: Literal["batch-compare"] = "batch-compare"
    version: int = REPORT_VERSION
    tool: str = ""
    created_at: float = 0.0
    settings: dict[str, Any] = {}
    baseline: EngineInfo | None = None
    target: EngineInfo | None = None
    datasets: list[Dataset] = []
    noise: Noise = msgspec.field(default_factory=Noise)
    totals: Totals | None = None
    gate: dict[str, Any] = {}
    samples: list[Sample] = []
    imported_from: str | None = None


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


def by_id(report: Report) -> Mapping[str, Sample]:
    return {sample.sample_id: sample for sample in report.samples}
