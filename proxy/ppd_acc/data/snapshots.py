"""A baseline's answers, kept: what later targets are held against when the baseline is gone.

Ours hold everything a comparison needs: answers with token ids and logprobs, the sampling, the noise floor measured at
the same time, and the dataset's hash. The published tool's hold texts and logprobs by token name; they are read, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from ppd_acc.ask.answers import Answer, read_answer
from ppd_acc.ask.question import Question
from ppd_acc.data.datasets import Row
from ppd_acc.data.report import Dataset, EngineInfo
from ppd_acc.outcome import Mistake
from ppd_accuracy.answers.flips import Measured, ReplayNoise, replay_noise_of

SNAPSHOT_VERSION = 2


class Kept(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One prompt and its answer, or the reason why there is none."""

    sample_id: str
    prompt: str | list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}
    expected: Any = None
    answer: Answer | None = None
    error: str | None = None
    error_reason: str | None = None


class Snapshot(msgspec.Struct, kw_only=True):
    """`captured_at` is in Unix seconds; `sampling` and `endpoint` are what it was asked with, empty where unknown;
    `noise` has the answers that the noise floor of that time is made of."""

    kind: Literal["snapshot"] = "snapshot"
    version: int = SNAPSHOT_VERSION
    tool: str = ""
    captured_at: float | str = 0.0
    baseline: EngineInfo | None = None
    endpoint: str | None = None
    sampling: dict[str, Any] = {}
    datasets: list[Dataset] = []
    noise: list[Measured] = []
    samples: list[Kept] = []
    imported_from: str | None = None

    @property
    def floor(self) -> ReplayNoise:
        return replay_noise_of(self.noise)

    @property
    def has_names(self) -> bool:
        """Whether its tokens are names instead of ids."""
        answers = [each.answer for each in self.samples if each.answer is not None and each.answer.tokens]
        return any(answer.unit == "tokens" and answer.ids is None for answer in answers)


class _PublishedSample(msgspec.Struct):
    sample_id: str | int
    prompt: str
    output: str | None = ""
    logprobs: list[Any] | None = None


class _PublishedSnapshot(msgspec.Struct):
    samples: list[_PublishedSample]
    captured_at: str | float = ""
    endpoint_url: str = ""
    model: str = ""


_encoder = msgspec.json.Encoder()
_snapshot = msgspec.json.Decoder(Snapshot)
_published = msgspec.json.Decoder(_PublishedSnapshot)


def encoded(snapshot: Snapshot) -> bytes:
    return _encoder.encode(snapshot) + b"\n"


def read_snapshot(path: Path, flag: str = "--snapshot") -> Snapshot:
    """One of ours or the published tool's. Raises Mistake."""
    name = f"{flag} {path}"
    try:
        body = path.read_bytes()
    except OSError as error:
        raise Mistake(f"{name}: {error.strerror or error}") from None
    try:
        head = msgspec.json.decode(body)
        if not isinstance(head, dict) or not isinstance(head.get("samples"), list):
            raise Mistake(f"{name}: not a snapshot: it must be an object with samples")
        if "kind" not in head and "endpoint_url" in head:
            snapshot = _from_published(_published.decode(body), name)
        elif head.get("kind") != "snapshot":
            raise Mistake(f"{name}: kind is {head.get('kind')!r}; it must be a file that snapshot capture wrote")
        elif head.get("version") != SNAPSHOT_VERSION:
            raise Mistake(f"{name}: version is {head.get('version')!r}; this program reads {SNAPSHOT_VERSION}")
        else:
            snapshot = _snapshot.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Mistake(f"{name}: not a snapshot: {error}") from None
    ids = [each.sample_id for each in snapshot.samples]
    twice = next((each for number, each in enumerate(ids) if each in ids[:number]), None) if _repeats(ids) else None
    if twice is not None:
        raise Mistake(f"{name}: sample_id {twice!r} is there twice; ids must be unique")
    if not ids:
        raise Mistake(f"{name}: no sample in it")
    return snapshot


def _repeats(ids: Sequence[str]) -> bool:
    return len(set(ids)) < len(ids)


def _from_published(told: _PublishedSnapshot, name: str) -> Snapshot:
    return Snapshot(
        captured_at=told.captured_at,
        baseline=EngineInfo(url=told.endpoint_url, model=told.model or None),
        samples=[_from_sample(each, name) for each in told.samples],
        imported_from="xpyd-acc snapshot",
    )


def _from_sample(told: _PublishedSample, name: str) -> Kept:
    """Its logprobs are a chat answer's content entries, so they are read as one."""
    logprobs = {"content": told.logprobs} if told.logprobs else None
    choice = {"message": {"content": told.output or ""}, "logprobs": logprobs}
    try:
        answer = read_answer(_encoder.encode({"choices": [choice]}))
    except ValueError as error:
        raise Mistake(f"{name}: sample {told.sample_id!r}: {error}") from None
    return Kept(sample_id=str(told.sample_id), prompt=told.prompt, answer=answer)


def kept(row: Row, answer: Answer | None, error: str | None = None, reason: str | None = None) -> Kept:
    question = row.question
    prompt = question.prompt
    return Kept(
        sample_id=row.sample_id,
        prompt=prompt if prompt is None or isinstance(prompt, str) else list(prompt),
        messages=None if question.messages is None else [dict(each) for each in question.messages],
        extra=None if question.extra is None else dict(question.extra),
        metadata=dict(row.metadata),
        expected=row.expected,
        answer=answer,
        error=error,
        error_reason=reason,
    )


def rows_of(snapshot: Snapshot) -> tuple[Row, ...]:
    """Its prompts as they were asked."""
    return tuple(
        Row(
            sample_id=each.sample_id,
            question=Question(messages=each.messages, prompt=each.prompt, extra=each.extra),
            line=number,
            expected=each.expected,
            metadata=each.metadata,
        )
        for number, each in enumerate(snapshot.samples, start=1)
    )


def answers_for(snapshot: Snapshot, rows: Sequence[Row], name: str) -> Mapping[str, Kept]:
    """The snapshot's samples by id, for rows of a dataset. Raises Mistake where a row is not in it, or asks something
    else under the same id."""
    by_id = {each.sample_id: each for each in snapshot.samples}
    missing = [row.sample_id for row in rows if row.sample_id not in by_id]
    if missing:
        raise Mistake(
            f"{name}: {len(missing)} of {len(rows)} rows are not in the snapshot, the first is {missing[0]!r}"
        )
    for row in rows:
        was = by_id[row.sample_id]
        asked = kept(row, None)
        has_other_fields = snapshot.imported_from is None and was.extra != asked.extra
        if (was.prompt, was.messages) != (asked.prompt, asked.messages) or has_other_fields:
            raise Mistake(f"{name}: {row.sample_id!r} asks something else than the dataset's line {row.line}")
    return by_id
