"""What a leg tells: one event per phase, never one per chunk. Pure values."""

from __future__ import annotations

from typing import Literal

import msgspec

from ppd_wire.errors import EngineFailure

LegKind = Literal["prefill", "decode", "release"]


class FirstByte(msgspec.Struct, frozen=True):
    """The first decisive event of a stream."""


class LegEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer. `is_client_fault`: a status of 500 whose body says that the request itself is wrong.
    `has_kv`: a prefill answer that handed something over."""

    status: int
    is_client_fault: bool = False
    has_kv: bool = False


class LegFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A leg without a complete answer. `was_sent`: the engine may have seen the request. `is_our_doing`: it broke by
    what the proxy asked for beside the client's wishes, so that the client pays no try for it."""

    error: EngineFailure
    was_sent: bool = True
    is_our_doing: bool = False


LegEvent = FirstByte | LegEnded | LegFailed
