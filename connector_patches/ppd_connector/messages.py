"""What engines say to each other: one msgpack header, and for `Put` over TCP a second frame with one layer's KV.

Ours, not P2pNccl's: engines with a stock connector are not spoken to. `key` is the 32 hex digits of the request's tag;
token positions count from the prompt's first token, `end_token` is exclusive.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PROTOCOL = 1

Refusal = Literal[
    "full",
    "gone",
    "mismatch",
    "checksum",
    "timeout",
    "peer",
    "aborted",
    "fenced",
    "prefix_not_held",
    "expired",
    "unused",
]
"""Why KV did not arrive: the receiver's buffer is full; the key is finished with; header and receiver disagree; the
payload is not what was sent; nobody answered in time; NCCL failed, or the other end gave the communicator up; the other
side gave the request up; the peer is left alone for a while; the consumer held less than the proxy thought; the lease
ended; the consumer needed nothing of it."""


class Put(msgspec.Struct, frozen=True, tag="put", array_like=True, kw_only=True):
    """KV of one layer. `total_tokens` is where the transfer ends, `from_token` where it begins; `prompt` digests what
    the KV was computed from; `checksum` is the payload's xxh3 (64 bits) or None; `channel` is the NCCL communicator
    that the payload takes once the receiver is `Ready`, 0 when it is this message's second frame."""

    key: str
    sender: str
    fingerprint: str
    prompt: str
    layer: int
    first_token: int
    end_token: int
    from_token: int
    total_tokens: int
    payload_bytes: int
    checksum: int | None
    channel: int = 0
    protocol: int = PROTOCOL


class Ack(msgspec.Struct, frozen=True, tag="ack", array_like=True, kw_only=True):
    """One `Put` was taken, or why not."""

    key: str
    layer: int
    first_token: int
    refusal: str | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True, kw_only=True):
    """The receiver of a `Put` has memory for it and receives it as payload `number` (from 0) of the communicator."""

    key: str
    layer: int
    first_token: int
    channel: int
    number: int


class Meet(msgspec.Struct, frozen=True, tag="meet", array_like=True, kw_only=True):
    """Sender (rank 0) and receiver (rank 1) make an NCCL communicator of two. `channel` names it and is never 0 and
    never used again; `unique_id` is NCCL's. It replaces the one they had in this direction."""

    sender: str
    channel: int
    unique_id: bytes


class Parted(msgspec.Struct, frozen=True, tag="parted", array_like=True, kw_only=True):
    """One end gave the communicator up, or ("gone") does not know it: nothing more is sent or received over it."""

    channel: int
    refusal: Literal["timeout", "peer", "gone"]


class Sent(msgspec.Struct, frozen=True, tag="sent", array_like=True, kw_only=True):
    """Every `Put` of this transfer was acknowledged; `seconds` is how long at least one was under way."""

    key: str
    seconds: float


class Get(msgspec.Struct, frozen=True, tag="get", array_like=True, kw_only=True):
    """The consumer asks for tokens of all layers; answered with `Put`s on the same connection, or with `Refused`."""

    key: str
    sender: str
    fingerprint: str
    prompt: str
    first_token: int
    end_token: int


class Abort(msgspec.Struct, frozen=True, tag="abort", array_like=True, kw_only=True):
    """No more will come under this key."""

    key: str
    refusal: str


class Done(msgspec.Struct, frozen=True, tag="done", array_like=True, kw_only=True):
    """The consumer needs nothing (more) of this key: the producer's blocks can be freed."""

    key: str


Message = Put | Ack | Ready | Meet | Parted | Sent | Get | Abort | Done

_decode = msgspec.msgpack.Decoder(Message).decode
encode = msgspec.msgpack.Encoder().encode


def decode(frame: bytes | memoryview) -> Message:
    """Read a header; ValueError when it is none."""
    try:
        message: Message = _decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a message of a KV connector: {error}") from None
    return message
