"""What an engine is asked, before it is known which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ppd_acc.ask.access import Sampling
from ppd_wire.requests import asking

_PATHS = (("chat", "/v1/chat/completions"), ("completions", "/v1/completions"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: a conversation, a text, or token ids. `extra` fields go into the body as they are."""

    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | Sequence[int] | None = None
    extra: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """For people: the prompt, or the last message's text."""
        if isinstance(self.prompt, str):
            return self.prompt
        if self.prompt is not None:
            return " ".join(map(str, self.prompt))
        content = self.messages[-1].get("content") if self.messages else ""
        return content if isinstance(content, str) else msgspec.json.encode(content).decode()

    @property
    def size(self) -> int:
        """Grows with the length of what is asked: characters, or token ids."""
        if self.messages is not None:
            return len(msgspec.json.encode(self.messages))
        return len(self.prompt or "")

    def body(self, endpoint: str, model: str, sampling: Sampling) -> tuple[str, dict[str, Any]]:
        """Path and body. A text becomes one user message on the chat endpoint; token ids go to completions only."""
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        is_chat = self.messages is not None or (endpoint == "chat" and isinstance(self.prompt, str))
        if is_chat:
            body |= asking.chat_part(self.messages or [{"role": "user", "content": self.prompt}], sampling.top_k)
        else:
            body |= asking.completion_part(self.prompt, sampling.top_k)
        return dict(_PATHS)["chat" if is_chat else "completions"], {**asking.with_ids(body), **(self.extra or {})}
