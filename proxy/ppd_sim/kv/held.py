"""What a prefill engine keeps for decode engines: prompts' KV under a lease, handed out once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from ppd_wire.answers.transfer import Transfer

_REMEMBERED: Final = 10_000
Gone = Literal["unknown", "consumed", "freed", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPrompt:
    """The KV of one prompt: `digest` says of which token ids, `cached_tokens` how many were prefix hits here. `peer` is
    the engine it is meant for, where that is known, and `transfer` what sending it costs."""

    key: str
    peer: str
    transfer: Transfer
    block_ids: tuple[int, ...]
    digest: str
    num_tokens: int
    cached_tokens: int


class HeldPrompts:
    """Prompts by key. A key leaves by being pulled, freed, or when its lease ends."""

    def __init__(self, lease_s: float, on_expiry: Callable[[], None]) -> None:
        self._lease_s = lease_s
        self._on_expiry = on_expiry
        self._held: dict[str, tuple[HeldPrompt, asyncio.TimerHandle]] = {}
        self._gone: OrderedDict[str, Gone] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def blocks(self) -> int:
        return sum(len(prompt.block_ids) for prompt, _ in self._held.values())

    def hold(self, prompt: HeldPrompt) -> None:
        self._forget(prompt.key, "freed")
        timer = asyncio.get_running_loop().call_later(self._lease_s, self._expire, prompt.key)
        self._held[prompt.key] = (prompt, timer)

    def peek(self, key: str) -> HeldPrompt | None:
        held = self._held.get(key)
        return held[0] if held else None

    def take(self, key: str) -> HeldPrompt | None:
        """Hand the prompt out; a second time there is nothing."""
        prompt = self.peek(key)
        self._forget(key, "consumed")
        return prompt

    def free(self, key: str) -> bool:
        """Give the blocks back unread."""
        return self._forget(key, "freed")

    def renew(self, key: str, lease_s: float) -> bool:
        """A decode engine that waits keeps the lease alive."""
        if key not in self._held:
            return False
        prompt, timer = self._held[key]
        timer.cancel()
        self._held[key] = (prompt, asyncio.get_running_loop().call_later(lease_s, self._expire, key))
        return True

    def why_gone(self, key: str) -> Gone:
        return self._gone.get(key, "unknown")

    def close(self) -> None:
        for _, timer in self._held.values():
            timer.cancel()
        self._held.clear()

    def _expire(self, key: str) -> None:
        if self._forget(key, "expired"):
            self._on_expiry()

    def _forget(self, key: str, why: Gone) -> bool:
        if key not in self._held:
            return False
        _, timer = self._held.pop(key)
        timer.cancel()
        self._gone[key] = why
        self._gone.move_to_end(key)
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
        return True
