"""What a baseline needs to know of a sampled answer: its tokens, and how likely the engines that made them found them.

Source of the shapes: vLLM 0.32. Its streams have null, and its chat entries no field at all, where there is no number;
other encoders write NaN. No IO.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ppd_wire.answers.answer import Choice, Reply, assemble
from ppd_wire.events import payloads
from ppd_wire.requests.generation import Kind

MAX_LOGPROB = 1e-3
"""In nats; above zero only as far as rounding explains it."""

_BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)  # json's and Unicode's errors are ValueErrors


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """What one request's drafts came to, where the engine tells (`--enable-per-request-metrics`). `per_position[i]` is
    the share of the `steps` whose draft token i was accepted."""

    steps: int
    drafted: int
    accepted: int
    per_position: list[float]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the cluster. `logprobs` (nats) has one number per token, NaN where the engine had none that makes
    sense; `tops` has as many mappings from a token's text, or "token_id:<n>", to its logprob, empty where not asked
    for. `text` is the content without reasoning. `finish_reason` is None for an answer that was broken off."""

    prompt_token_ids: list[int] | None
    token_ids: list[int]
    logprobs: list[float]
    tops: list[dict[str, float]]
    finish_reason: str | None
    text: str
    tool_calls: list[dict[str, Any]]
    acceptance: Acceptance | None = None


class _Entry(msgspec.Struct, gc=False):
    """One token of a chat answer."""

    token: str = ""
    logprob: Any = None
    top_logprobs: list[_Entry] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    """`content` in chat answers, the other two in completions."""

    content: list[_Entry] | None = None
    token_logprobs: list[Any] | None = None
    top_logprobs: list[dict[str, Any] | None] | None = None


class _Choice(Choice, gc=False):
    logprobs: _Logprobs | None = None
    prompt_token_ids: list[int] | None = None


class _SpeculativeDecoding(msgspec.Struct, gc=False):
    """vLLM's `SpeculativeDecodingMetrics`: entry j of the histogram counts the steps that accepted exactly j tokens."""

    acceptance_histogram: list[int] = []
    num_draft_tokens: int = 0
    num_accepted_draft_tokens: int = 0


class _Metrics(msgspec.Struct, gc=False):
    speculative_decoding: _SpeculativeDecoding | None = None


class _Reply(msgspec.Struct, gc=False):
    metrics: _Metrics | None = None
    choices: list[_Choice] = []
    prompt_token_ids: list[int] | None = None
    error: Any = None


_reply = msgspec.json.Decoder(_Reply)


def read_candidate(kind: Kind, body: bytes) -> Candidate | None:
    """The candidate in a JSON answer; None when tokens and logprobs are not there or do not fit together."""
    try:
        return _put_together(kind, [_read(body)])
    except _BROKEN:
        return None


def read_candidate_stream(kind: Kind, stream: bytes) -> Candidate | None:
    """As `read_candidate`, of all events of a stream; None also when one of them is an error."""
    try:
        return _put_together(kind, [_read(payload) for payload in payloads(stream)])
    except _BROKEN:
        return None


def _read(payload: bytes) -> _Reply:
    try:
        return _reply.decode(payload)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(payload), _Reply)  # knows NaN, and numbers beyond a float's range


def _put_together(kind: Kind, replies: Sequence[_Reply]) -> Candidate | None:
    prompt_token_ids: list[int] | None = None
    finish_reason: str | None = None
    token_ids: list[int] = []
    logprobs: list[float] = []
    tops: list[dict[str, float]] = []
    acceptance: Acceptance | None = None
    for reply in replies:
        if reply.error is not None:
            return None
        if reply.metrics is not None:
            acceptance = _acceptance(reply.metrics.speculative_decoding)
        prompt_token_ids = prompt_token_ids or reply.prompt_token_ids
        for choice in reply.choices:
            if choice.index != 0:
                return None
            prompt_token_ids = prompt_token_ids or choice.prompt_token_ids
            finish_reason = finish_reason or choice.finish_reason
            scores = _scores(kind, choice.logprobs)
            if len(scores) != len(choice.token_ids or ()):
                return None
            token_ids += choice.token_ids or ()
            logprobs += (number for number, _ in scores)
            tops += (top for _, top in scores)
    said = assemble([Reply(choices=[*reply.choices]) for reply in replies])
    if said.token_ids is None:
        return None
    return Candidate(
        prompt_token_ids=prompt_token_ids,
        token_ids=token_ids,
        logprobs=logprobs,
        tops=tops,
        finish_reason=finish_reason,
        text=said.content,
        tool_calls=said.tool_calls,
        acceptance=acceptance,
    )


def _acceptance(told: _SpeculativeDecoding | None) -> Acceptance | None:
    if told is None or not sum(told.acceptance_histogram):
        return None
    histogram = told.acceptance_histogram
    steps = sum(histogram)
    return Acceptance(
        steps=steps,
        drafted=told.num_draft_tokens,
        accepted=told.num_accepted_draft_tokens,
        per_position=[sum(histogram[place:]) / steps for place in range(1, len(histogram))],
    )


def _scores(kind: Kind, given: _Logprobs | None) -> list[tuple[float, dict[str, float]]]:
    """Per token its logprob and the likeliest tokens'."""
    if given is None:
        return []
    if kind == "chat":
        return [(_number(entry.logprob), _by_token(entry.top_logprobs or ())) for entry in given.content or ()]
    own = given.token_logprobs or []
    tops = given.top_logprobs or [None] * len(own)
    if len(tops) != len(own):
        return []
    return [
        (_number(value), {token: _number(logprob) for token, logprob in (top or {}).items()})
        for value, top in zip(own, tops, strict=True)
    ]


def _by_token(entries: Sequence[_Entry]) -> dict[str, float]:
    """Of several tokens with the same text (pieces of characters) the first, which is the likeliest."""
    found: dict[str, float] = {}
    for entry in entries:
        found.setdefault(entry.token, _number(entry.logprob))
    return found


def _number(value: object) -> float:
    """A logprob; NaN for what can be none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= MAX_LOGPROB:
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan
