"""What comparisons are written as. Reading it again is `report_files`'.

A report says everything a number was made from: settings, engines, dataset, tokens, logprobs. Schema:
docs/ppd-acc.schema.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from ppd_accuracy.answers.flips import Token
from ppd_accuracy.answers.said import Difference, Said, said_of

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


def by_id(report: Report) -> Mapping[str, Sample]:
    return {sample.sample_id: sample for sample in report.samples}
