"""A JSON answer with all that tells of its tokens: ids, names, spellings, logprobs.

Shapes: vLLM 0.32 (`return_token_ids`, `return_tokens_as_token_ids`), and whatever else speaks the same API with less.
What a client's answer is read for on its way has fewer fields: `answers.answer`.
"""

from __future__ import annotations

from builtins import bytes as Bytes
from typing import Any

import msgspec

_NOT_TOLD = msgspec.Raw(b"null")
_numbers = msgspec.json.Decoder(list[int] | None)


class TokenEntry(msgspec.Struct, gc=False):
    """`bytes` are read where a name does not do: most engines tell ids, and lists of numbers are dear to read."""

    token: str = ""
    logprob: float | None = None
    top_logprobs: list[TokenEntry] | None = None
    bytes: msgspec.Raw = _NOT_TOLD

    @property
    def spelling(self) -> Bytes | None:
        """None where the engine does not tell, or tells numbers that are no bytes."""
        if Bytes(self.bytes) == b"null":  # nearly always where names are ids
            return None
        try:
            numbers = _numbers.decode(self.bytes)
            return Bytes(numbers) if numbers is not None else None
        except (msgspec.MsgspecError, ValueError):
            return None


class Logprobs(msgspec.Struct, gc=False):
    content: list[TokenEntry] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class Message(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None
    """The older API's only call."""

    @property
    def thought(self) -> str | None:
        return self.reasoning or self.reasoning_content

    @property
    def has_thought(self) -> bool:
        """Whether there is a field for it, be it empty."""
        return self.reasoning is not None or self.reasoning_content is not None

    @property
    def calls(self) -> list[dict[str, Any]]:
        if self.tool_calls or not self.function_call:
            return self.tool_calls or []
        return [{"index": 0, "type": "function", "function": self.function_call}]


class DetailedChoice(msgspec.Struct, gc=False):
    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    text: str | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class CountedUsage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class DetailedReply(msgspec.Struct, gc=False):
    """A JSON answer, or all chunks of a stream as one."""

    choices: list[DetailedChoice]
    id: str | None = None
    usage: CountedUsage | None = None
    prompt_token_ids: list[int] | None = None
