"""What is known of a conversation: its home, and its history as one request shows it."""

from __future__ import annotations

import msgspec

from ppd_core.conversation.identity import RawSteps

Steps = list[bytes] | RawSteps | None
"""A request's own steps, of its messages or of its raw prompt; None or empty: nothing to find it by."""


class Home(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The decode engine that holds a conversation's KV, and how many tokens of it.

    `filled_by` are the ids of the prefill engines whose KV it took for this conversation, in order and each once, as
    far as this history tells; empty when it computed everything itself. `salt` is the cache salt that the proxy gave
    its legs ("": none): KV under another salt never matches.
    """

    engine_id: str
    incarnation: int
    held_tokens: int
    filled_by: tuple[str, ...] = ()
    salt: str = ""


class History(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known about the history of one request.

    `known_answers` counts the answers of ours in the longest known prefix. `is_complete` says that this prefix reaches
    up to and including the last assistant message (raw prompts: the end of an earlier answer). `has_answers` says that
    the request carries assistant messages at all.
    """

    known_answers: int = 0
    is_complete: bool = False
    has_answers: bool = False
    home: Home | None = None

    @property
    def turn(self) -> int:
        return self.known_answers + 1


class KnownHistory(msgspec.Struct, frozen=True, gc=False):
    """What is known of a request's history. `spread_key` is the digest of the conversation's start."""

    history: History
    spread_key: bytes
    steps: Steps
