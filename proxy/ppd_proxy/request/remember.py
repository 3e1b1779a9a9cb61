"""What a request does with the conversations: it looks its history up, and puts its answer there. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Protocol, TypeVar

import msgspec
import xxhash

from ppd_core.conversation import identity, stepped
from ppd_core.conversation.history import History, Home
from ppd_proxy.request.call import Call
from ppd_wire.answers.answer import EngineAnswer
from ppd_wire.errors import BadRequest
from ppd_wire.requests import generation as chat

Steps = list[bytes] | identity.RawSteps | None
"""A request's own steps, of its messages or of its raw prompt; None or empty: nothing to find it by."""


class KnownHistory(msgspec.Struct, frozen=True, gc=False):
    """What is known of a request's history. `spread_key` is the digest of the conversation's start."""

    history: History
    spread_key: bytes
    steps: Steps


T = TypeVar("T")
Looking = Generator[Awaitable[History] | None, History | None, T]
"""Looking up, in steps. Between two of them others have their turn (None), or something is awaited and sent in."""


class Store(Protocol):
    """Where conversations are kept: see `ppd_core/conversation/conversations.py`. One that is not in this process gives
    an awaitable."""

    def look_up_chat(
        self, steps: Sequence[bytes], *, last_assistant: int, now: float
    ) -> History | Awaitable[History]: ...

    def look_up_raw(self, steps: identity.RawSteps, *, now: float) -> History | Awaitable[History]: ...

    def remember_chat(
        self, steps: Sequence[bytes], answer: identity.AnswerSteps | None, *, home: Home, prompt_tokens: int, now: float
    ) -> None: ...

    def remember_raw(
        self,
        steps: identity.RawSteps,
        answer: str | list[int] | None,
        *,
        home: Home,
        prompt_tokens: int,
        now: float,
    ) -> None: ...


class Memory:
    """`clock` gives the seconds that the store knows."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def look_up(self, call: Call, generation: chat.Generation) -> Looking[KnownHistory]:
        """Raises BadRequest for a prompt that cannot be read."""
        envelope, now = call.envelope, self._clock()
        named = envelope.named
        explicit = named.get(b"x-session-id") or named.get(b"x-conversation-id") or b""
        scope = identity.scope(
            api_key=envelope.client_key, fields=generation.fields, explicit_id=explicit.decode("latin-1")
        )
        if generation.kind == "chat":
            steps = yield from stepped.chat_steps(scope, generation)
            last = identity.last_assistant(generation.messages)
            found = self._store.look_up_chat(steps, last_assistant=last, now=now)
            history = yield from _awaited(found)
            return KnownHistory(history, steps[_first_user(generation)] if steps else scope, steps)
        try:
            raw = yield from stepped.raw_steps(scope, generation.prompt)
        except ValueError as error:
            raise BadRequest(str(error), param="prompt") from None
        spread_key = xxhash.xxh3_128_digest(scope + raw.data[: identity.BLOCK_UNITS])
        history = yield from _awaited(self._store.look_up_raw(raw, now=now))
        return KnownHistory(history, spread_key, raw)

    def remember(
        self, generation: chat.Generation, answer: EngineAnswer, steps: Steps, *, home: Home, prompt_tokens: int
    ) -> None:
        """The whole answer to the request of `steps`: its next turn finds it, and `home`."""
        store, now = self._store, self._clock()
        if isinstance(steps, identity.RawSteps):
            store.remember_raw(steps, _raw_answer(generation, answer), home=home, prompt_tokens=prompt_tokens, now=now)
        elif steps:
            answered = None
            if not generation.continues_answer:
                said = identity.RememberedAnswer(
                    content=answer.content, reasoning=answer.reasoning, tool_calls=answer.tool_calls
                )
                answered = identity.answer_steps(steps[-1], said)
            store.remember_chat(steps, answered, home=home, prompt_tokens=prompt_tokens, now=now)


def _awaited(found: History | Awaitable[History]) -> Looking[History]:
    if isinstance(found, History):
        return found
    history = yield found
    if history is None:
        raise RuntimeError("a history was awaited, and not sent in")
    return history


def _first_user(generation: chat.Generation) -> int:
    """Index of the first user message: the digest up to there stays the same for the whole conversation."""
    for index, message in enumerate(generation.messages):
        if message.get("role") == "user":
            return index
    return 0


def _raw_answer(generation: chat.Generation, answer: EngineAnswer) -> str | list[int] | None:
    """What follows the prompt in the prompt's own form."""
    if isinstance(generation.prompt, list):
        return answer.token_ids
    prompt = generation.prompt
    text = prompt.decode("utf-8", "surrogatepass") if isinstance(prompt, bytes) else prompt
    return answer.content.removeprefix(text) if generation.echoes_prompt else answer.content
