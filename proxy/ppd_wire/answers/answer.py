"""An engine's answer: what the client may see of it, and what the proxy learns from it.

Owns the shapes of vLLM's JSON answers (chat and completions), whole and as stream chunks. No IO.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ppd_connector.wire import TRANSFER_FIELD
from ppd_wire.answers.removal import take_out, take_out_handoff
from ppd_wire.answers.transfer import Transfer
from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.asked import Asked
from ppd_wire.requests.generation import KV_PARAMS

TOO_LONG_MARKS = (b"maximum context length", b"maximum model length", b"longer than the maximum", b"max_model_len")


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens served from a prefix cache; None where the engine does not tell."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class Delta(msgspec.Struct, gc=False):
    """An assistant message, or a piece of one."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class Reply(msgspec.Struct, gc=False):
    choices: list[Choice] = []
    usage: Usage | None = None


class _TransferParams(msgspec.Struct, gc=False):
    transfer: Transfer | None = msgspec.field(default=None, name=TRANSFER_FIELD)


class _TransferReply(msgspec.Struct, gc=False):
    params: _TransferParams | None = msgspec.field(default=None, name=KV_PARAMS)


class _ErrorDetail(msgspec.Struct, gc=False):
    message: str = ""


class _ErrorReply(msgspec.Struct, gc=False):
    error: _ErrorDetail


class EngineAnswer(msgspec.Struct):
    """What one answer said, put together from one JSON body or from all chunks of a stream."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = []
    token_ids: list[int] | None = None
    usage: Usage | None = None
    is_finished: bool = False
    is_single: bool = True
    """One choice: a message that a client can send back. Of several only `usage` is read."""


_transfer_reply = msgspec.json.Decoder(_TransferReply)
_error_reply = msgspec.json.Decoder(_ErrorReply)
_TRANSFER_MARK = f'"{TRANSFER_FIELD}"'.encode()
_MANY_TEXTS = 16
"""A text of a few letters takes ten times as much by itself."""
_NOT_A_NUMBER = "Out of range float values are not JSON compliant"


def counted_usage(answer: EngineAnswer | None) -> int | None:
    """The prompt tokens that an answer counts; None where it tells nothing. No prompt has 0 tokens."""
    tokens = answer.usage.prompt_tokens if answer is not None and answer.usage is not None else 0
    return tokens if tokens > 0 else None


def read_transfer(body: bytes) -> Transfer | None:
    """What a JSON answer tells of its KV transfer; None when it tells nothing or nothing that makes sense."""
    if body.find(_TRANSFER_MARK) < 0:  # most answers: not worth reading a second time
        return None
    try:
        params = _transfer_reply.decode(body).params
    except BROKEN:
        return None
    return params.transfer if params is not None else None


def whole_answer(reply: Reply) -> EngineAnswer:
    """What an answer in one body says."""
    if len(reply.choices) == 1:
        choice = reply.choices[0]
        message = choice.message
        if message is not None and choice.index == 0 and not message.tool_calls:
            return EngineAnswer(
                content=message.content or "",
                reasoning=message.reasoning or message.reasoning_content or "",
                token_ids=choice.token_ids,
                usage=reply.usage,
                is_finished=choice.finish_reason is not None,
            )
    return assemble([reply])


def assemble(replies: list[Reply]) -> EngineAnswer:
    """Pieces of one choice joined in order."""
    assembly = Assembly()
    assembly.add(replies)
    return assembly.answer()


class Assembly:
    """Pieces of one choice, joined in order as they come."""

    __slots__ = ("_answer", "_content", "_reasoning")

    def __init__(self) -> None:
        self._answer = EngineAnswer()
        self._content: list[str] = []
        self._reasoning: list[str] = []

    def add_texts(self, texts: list[str]) -> None:
        if texts:
            self._content.append("".join(texts))
            if len(self._content) > _MANY_TEXTS:
                self._content = ["".join(self._content)]

    def add(self, replies: list[Reply]) -> None:
        answer, content = self._answer, list[str]()
        for reply in replies:
            if reply.usage is not None:
                answer.usage = reply.usage
            for choice in reply.choices:
                if choice.index != 0:
                    answer.is_single = False
                    break
                if choice.finish_reason is not None:
                    answer.is_finished = True
                if choice.token_ids is not None:
                    answer.token_ids = answer.token_ids if answer.token_ids is not None else []
                    answer.token_ids += choice.token_ids
                piece = choice.message or choice.delta
                if piece is None:
                    content.append(choice.text or "")
                    continue
                if piece.content:
                    content.append(piece.content)
                if piece.reasoning or piece.reasoning_content:
                    self._reasoning.append(piece.reasoning or piece.reasoning_content or "")
                if piece.tool_calls:
                    _merge_tool_calls(answer.tool_calls, piece.tool_calls)
        self.add_texts(content)

    def answer(self) -> EngineAnswer:
        """What was said so far."""
        self._answer.content, self._answer.reasoning = "".join(self._content), "".join(self._reasoning)
        return self._answer


def _merge_tool_calls(calls: list[dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    """Streamed tool calls arrive by `index`: the first piece has id and name, later ones more arguments."""
    for piece in pieces:
        index = piece.get("index", len(calls))
        function = piece.get("function") or {}
        if not isinstance(index, int) or not 0 <= index < len(calls):
            calls.append({"id": piece.get("id"), "type": "function", "function": dict(function)})
            continue
        known = calls[index]["function"]
        known["name"] = known.get("name") or function.get("name")
        known["arguments"] = (known.get("arguments") or "") + (function.get("arguments") or "")


def client_body(body: bytes, *, hidden_id: bytes, public_id: bytes, asked: Asked) -> bytes:
    """The answer as the client may see it: no engine-side id, no handoff parameters, nothing that only the proxy
    `asked` for.

    Of a body that `read_whole` or `shown_error` let pass; others come back as they are.
    """
    if hidden_id != public_id:
        body = body.replace(hidden_id, public_id)
    if asked.is_anything:
        body = take_out(body, asked) or body
    return take_out_handoff(body)


def is_too_long(body: bytes) -> bool:
    """A 500 that means the client's prompt is too long: the engine is healthy and a retry is pointless (router#148)."""
    return any(mark in body for mark in TOO_LONG_MARKS)


def is_too_many_logprobs(body: bytes, kind: Literal["sample", "prompt"], count: int) -> bool:
    """vLLM's refusal (status 400) of `count` logprobs because of its --max-logprobs."""
    return _error_message(body).startswith(f"Requested {kind} logprobs of {count}, which is greater than max allowed")


def is_not_a_number(body: bytes) -> bool:
    """The error of vLLM 0.32 (status 400) for an answer with a logprob that is NaN or infinite, which its JSON cannot
    hold: something is badly wrong with the KV or the weights, not with the request."""
    return _error_message(body).startswith(_NOT_A_NUMBER)


def _error_message(body: bytes) -> str:
    """What an engine's error says; other errors may quote a client's words anywhere behind its beginning."""
    try:
        return _error_reply.decode(body).error.message
    except BROKEN:
        return ""
