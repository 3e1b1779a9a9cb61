"""Whether both legs of a request rendered the same prompt, as far as their token counts tell.

The prefill engine's KV fits one prompt only. Where the decode engine renders another one (a template with the time of
day, other defaults, another release), it takes blocks that are not its own and answers with status 200. No IO.
"""

from __future__ import annotations

from typing import Any, Literal

Result = Literal["same", "differs", "unknown"]


class PromptCheck:
    """The counts of one attempt. `result` is None until the decode leg's count is known, or known to be missing."""

    __slots__ = ("decode_tokens", "prefill_tokens", "result")

    def __init__(self, prefill_tokens: int | None) -> None:
        self.prefill_tokens = prefill_tokens
        self.decode_tokens: int | None = None
        self.result: Result | None = None

    def compare(self, decode_tokens: int | None) -> bool:
        """Whether the decode leg's answer may be used; an engine that gives no count is at no fault."""
        self.decode_tokens = decode_tokens
        if self.prefill_tokens is None or decode_tokens is None:
            self.result = "unknown"
        else:
            self.result = "same" if self.prefill_tokens == decode_tokens else "differs"
        return self.result != "differs"

    @property
    def is_differing(self) -> bool:
        return self.result == "differs"

    def __str__(self) -> str:
        return (
            f"the legs rendered two prompts: the prefill engine counts {self.prefill_tokens} tokens, the decode engine"
            f" {self.decode_tokens}"
        )


def counted(usage: Any) -> int | None:
    """`prompt_tokens` of a decoded `usage`; None where it tells nothing. No prompt has 0 tokens."""
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int and count > 0 else None
