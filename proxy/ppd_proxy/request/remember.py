"""What a request does with the conversations: it looks its history up, and puts its answer there. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Protocol, TypeVar

import xxhash

from ppd_core.conversation import identity, stepped
from ppd_core.conversation.history import History, Home, KnownHistory, Steps
from ppd_proxy.request.request import Envelope
from ppd_wire.answers.answer import EngineAnswer
from ppd_wire.errors import BadRequest
from ppd_wire.requests import generation as chat

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

    def look_up(self, envelope: Envelope, generation: chat.Generation) -> KnownHistory | Looking[KnownHistory]:
        """What is known where the store tells it at once, and the steps that are left where it does not. Raises
        BadRequest for a prompt that cannot be read."""
        scope = _scope(envelope, generation)
        if generation.kind == "chat":
            return self._look_up_chat(scope, generation, identity.chat_steps(scope, generation.messages))
        try:
            return self._look_up_raw(scope, identity.raw_steps(scope, generation.prompt))
        except ValueError as error:
            raise BadRequest(str(error), param="prompt") from None

    def look_up_large(self, envelope: Envelope, generation: chat.Generation) -> Looking[KnownHistory]:
        """As `look_up`, for a body that is hashed in steps."""
        scope = _scope(envelope, generation)
        if generation.kind == "chat":
            known = self._look_up_chat(scope, generation, (yield from stepped.chat_steps(scope, generation)))
        else:
            try:
                known = self._look_up_raw(scope, (yield from stepped.raw_steps(scope, generation.prompt)))
            except ValueError as error:
                raise BadRequest(str(error), param="prompt") from None
        return known if isinstance(known, KnownHistory) else (yield from known)

    def _look_up_chat(
        self, scope: bytes, generation: chat.Generation, steps: list[bytes]
    ) -> KnownHistory | Looking[KnownHistory]:
        last = identity.last_assistant(generation.messages)
        found = self._store.look_up_chat(steps, last_assistant=last, now=self._clock())
        spread_key = steps[_first_user(generation)] if steps else scope
        return _known(found, spread_key, steps)

    def _look_up_raw(self, scope: bytes, steps: identity.RawSteps) -> KnownHistory | Looking[KnownHistory]:
        found = self._store.look_up_raw(steps, now=self._clock())
        spread_key = xxhash.xxh3_128_digest(scope + steps.data[: identity.BLOCK_UNITS])
        return _known(found, spread_key, steps)

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


def _scope(envelope: Envelope, generation: chat.Generation) -> bytes:
    named = envelope.named
    explicit = named.get(b"x-session-id") or named.get(b"x-conversation-id") or b""
    return identity.scope(
        api_key=envelope.client_key, fields=generation.fields, explicit_id=explicit.decode("latin-1")
    )


def _known(
    found: History | Awaitable[History], spread_key: bytes, steps: Steps
) -> KnownHistory | Looking[KnownHistory]:
    return KnownHistory(found, spread_key, steps) if isinstance(found, History) else _later(found, spread_key, steps)


def _later(found: Awaitable[History], spread_key: bytes, steps: Steps) -> Looking[KnownHistory]:
    history = yield found
    if history is None:
        raise RuntimeError("a history was awaited, and not sent in")
    return KnownHistory(history, spread_key, steps)


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
