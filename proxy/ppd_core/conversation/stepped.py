"""The steps of a history, told from a large body a part at a time."""

from __future__ import annotations

from typing import Any

from ppd_core.conversation import identity
from ppd_wire.json.stepwise import LARGE_BYTES, Steps
from ppd_wire.requests import generation as chat
from ppd_wire.requests.stepped import IDS_AT_ONCE, MESSAGES_AT_ONCE

_PARTS_AT_ONCE = 5000
_TEXT_BYTES = 2 * 1024 * 1024
_ROLLED_BYTES = 1024 * 4 * identity.BLOCK_UNITS


def chat_steps(scope: bytes, request: chat.Generation) -> Steps[list[bytes]]:
    """As `identity.chat_steps`."""
    if len(request.body) <= LARGE_BYTES:
        return identity.chat_steps(scope, request.messages)
    yield
    steps: list[bytes] = []
    group: list[dict[str, Any]] = []
    text_bytes = 0
    for message in request.messages:
        content = message.get("content")
        parts = content if isinstance(content, list) and len(content) > _PARTS_AT_ONCE else None
        if group and (parts is not None or len(group) >= MESSAGES_AT_ONCE or text_bytes > _TEXT_BYTES):
            steps += identity.chat_steps(steps[-1] if steps else scope, group)
            group, text_bytes = [], 0
            yield
        if parts is not None:
            canonical = yield from _content(parts)
            steps.append(identity.chat_step(steps[-1] if steps else scope, message, canonical))
            yield
        else:
            group.append(message)
            text_bytes += _weight(message)
    steps += identity.chat_steps(steps[-1] if steps else scope, group)
    yield
    return steps


def _weight(message: dict[str, Any]) -> int:
    """Roughly what hashing it costs, in bytes of text."""
    texts = sum(len(each) for each in message.values() if isinstance(each, str | bytes))
    return texts + sum(1000 * len(each) for each in message.values() if isinstance(each, list | dict))


def _content(parts: list[Any]) -> Steps[bytes]:
    pieces = []
    for start in range(0, len(parts), _PARTS_AT_ONCE):
        pieces.append(identity.canonical_parts(parts[start : start + _PARTS_AT_ONCE]))
        yield
    return b"".join(pieces)


def raw_steps(scope: bytes, prompt: str | bytes | list[int]) -> Steps[identity.RawSteps]:
    """As `identity.raw_steps`. Raises ValueError."""
    if isinstance(prompt, str) or len(prompt) <= IDS_AT_ONCE:
        return identity.raw_steps(scope, prompt)
    unit_bytes = 1 if isinstance(prompt, bytes) else 4
    if isinstance(prompt, bytes):
        data = prompt
    else:
        pieces = []
        for start in range(0, len(prompt), IDS_AT_ONCE):
            pieces.append(identity.raw_bytes(prompt[start : start + IDS_AT_ONCE]))
            yield
        data = b"".join(pieces)
    yield
    blocks = [identity.raw_start(scope, unit_bytes)]
    for start in range(0, len(data), _ROLLED_BYTES):
        yield
        blocks += identity.roll(blocks[-1], data[start : start + _ROLLED_BYTES], identity.BLOCK_UNITS * unit_bytes)[1:]
    return identity.RawSteps(data=data, unit_bytes=unit_bytes, blocks=tuple(blocks))
