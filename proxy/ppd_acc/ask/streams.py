"""A streamed answer: its server-sent events, when each came, and the answer that they make together.

Pieces need not be tokens: one event may carry several tokens (speculative decoding, a busy engine) or a token without
text (half a character, a parser that waits). So answers are put together by token ids, and times are of events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from ppd_acc.ask.answers import Answer, answer_of
from ppd_wire.answers.calls import Calls
from ppd_wire.answers.detailed import DetailedChoice, DetailedReply, Logprobs, Message
from ppd_wire.events import MAX_EVENT_BYTES, EventReader
from ppd_wire.events import Event as SentEvent

_SHOWN_BYTES = 200


class _Event(DetailedReply, gc=False):
    error: Any = None


_event = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One event that carried tokens or text, `at_ms` after the request was sent.

    `token_ids` is None where the engine does not tell ids; `tokens` counts them, or the logprobs, or is 0.
    """

    at_ms: float
    tokens: int
    token_ids: tuple[int, ...] | None
    is_reasoning: bool
    has_text: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A whole streamed answer. `is_done`: [DONE] came; `counted_tokens`: the engine's own count in its usage, None
    where it sent none."""

    answer: Answer
    chunks: tuple[Chunk, ...]
    is_done: bool
    counted_tokens: int | None

    @property
    def tokens(self) -> int:
        """Token ids or logprobs that came, else the engine's count, else the chunks."""
        return sum(chunk.tokens for chunk in self.chunks) or self.counted_tokens or len(self.chunks)

    @property
    def reasoning_tokens(self) -> int:
        return sum(chunk.tokens for chunk in self.chunks if chunk.is_reasoning)

    @property
    def first_ms(self) -> float | None:
        """To the first chunk with a token or text (a role is neither); None where nothing came."""
        return self.chunks[0].at_ms if self.chunks else None

    def gaps_ms(self) -> list[float]:
        """Between one token and the next: a gap before a chunk of k tokens counts k times as its k-th part."""
        found: list[float] = []
        for before, chunk in zip(self.chunks, self.chunks[1:], strict=False):
            count = max(1, chunk.tokens)
            found += [(chunk.at_ms - before.at_ms) / count] * count
        return found


@dataclass(slots=True)
class StreamReader:
    """Feeds on the bytes of a stream; ValueError is what no answer can be made of."""

    _events: EventReader = field(default_factory=EventReader)
    _texts: list[str] = field(default_factory=list)
    _thoughts: list[str] = field(default_factory=list)
    _ids: list[int] = field(default_factory=list)
    _has_ids: bool = True
    _logprobs: Logprobs = field(default_factory=Logprobs)
    _calls: Calls = field(default_factory=Calls)
    _whole: DetailedReply = field(default_factory=lambda: DetailedReply(choices=[]))
    _finish_reason: str | None = None
    _chunks: list[Chunk] = field(default_factory=list)
    _is_done: bool = False

    def feed(self, data: bytes, at_ms: float) -> None:
        """More bytes, and when they came. Raises ValueError for an error event or one that cannot be read."""
        for event in self._events.feed(data):
            self._read(event, at_ms)
        if self._events.is_too_long:
            raise ValueError(f"an event of the stream is longer than {MAX_EVENT_BYTES} bytes")

    def _read(self, sent: SentEvent, at_ms: float) -> None:
        payload = sent.data.strip()
        if payload == b"[DONE]":
            self._is_done = True
        if not payload or payload == b"[DONE]":
            return
        try:
            event = _event.decode(payload) if sent.name != b"error" else None
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"not an event of a stream: {error}: {_shown(payload)}") from None
        if event is None or event.error is not None:
            raise ValueError(f"the stream ended in an error event: {_shown(payload)}")
        whole = self._whole
        whole.id = whole.id or event.id
        whole.usage = event.usage or whole.usage
        whole.prompt_token_ids = whole.prompt_token_ids or event.prompt_token_ids
        for choice in event.choices:
            if choice.index == 0:
                whole.prompt_token_ids = whole.prompt_token_ids or choice.prompt_token_ids
                self._add(choice, at_ms)

    def _add(self, choice: DetailedChoice, at_ms: float) -> None:
        delta = choice.delta or Message(content=choice.text)
        thought = delta.thought or ""
        self._finish_reason = choice.finish_reason or self._finish_reason
        self._texts.append(delta.content or "")
        self._thoughts.append(thought)
        self._calls.add(delta.calls)
        scored = self._add_logprobs(choice.logprobs)
        ids = choice.token_ids
        self._ids += ids or ()
        has_text = bool(delta.content or thought or delta.calls)
        if ids is None and (has_text or scored):
            self._has_ids = False
        tokens = len(ids) if ids is not None else scored
        if tokens or has_text:
            self._chunks.append(
                Chunk(
                    at_ms=at_ms,
                    tokens=tokens,
                    token_ids=tuple(ids) if ids is not None else None,
                    is_reasoning=bool(thought),
                    has_text=has_text,
                )
            )

    def _add_logprobs(self, more: Logprobs | None) -> int:
        """How many tokens they are of."""
        mine = self._logprobs
        if more is None:
            return 0
        if more.content is not None:
            if mine.content is None:
                mine.content = []
            mine.content += more.content
            return len(more.content)
        names = more.tokens or []
        if mine.tokens is None or mine.token_logprobs is None or mine.top_logprobs is None:
            mine.tokens, mine.token_logprobs, mine.top_logprobs = [], [], []
        mine.tokens += names
        mine.token_logprobs += more.token_logprobs or [None] * len(names)
        mine.top_logprobs += more.top_logprobs or [None] * len(names)
        return len(names)

    def finish(self, total_ms: float, decision: str | None = None) -> Streamed:
        """The answer, at the end of the stream; `decision` is our proxy's, from the headers. Raises ValueError where
        the stream ended before the answer did."""
        if self._events.unfinished:
            self.feed(b"\n\n", total_ms)  # a last event without its empty line says what it says
        if self._finish_reason is None:
            raise ValueError(f"the stream ended after {len(self._chunks)} chunks without a finish reason")
        choice = DetailedChoice(
            message=Message(
                content="".join(self._texts),
                reasoning="".join(self._thoughts) or None,
                tool_calls=self._calls.whole,
            ),
            logprobs=self._logprobs,
            finish_reason=self._finish_reason,
            token_ids=self._ids if self._has_ids and (self._ids or not self._chunks) else None,
        )
        usage = self._whole.usage
        chunks = tuple(self._chunks)
        first_ms = chunks[0].at_ms if chunks else None
        answer = answer_of(self._whole, choice, total_ms=total_ms, first_ms=first_ms)
        return Streamed(
            answer=msgspec.structs.replace(answer, decision=decision),
            chunks=chunks,
            is_done=self._is_done,
            counted_tokens=usage.completion_tokens if usage is not None else None,
        )


def _shown(payload: bytes) -> str:
    return payload[:_SHOWN_BYTES].decode(errors="replace")
