"""A request's body as `chat` and `identity` read it: small ones in one go, large ones in steps (see `stepwise`)."""

from __future__ import annotations

from typing import Any

import msgspec

from ppd_proxy.core import chat, identity, opaque, stepwise
from ppd_proxy.core.opaque import Opaque
from ppd_proxy.core.stepwise import LARGE_BYTES, Steps

_MESSAGES_AT_ONCE = 1000
_PARTS_AT_ONCE = 5000
_TEXT_BYTES = 2 * 1024 * 1024
_IDS_AT_ONCE = 100_000
_ROLLED_BYTES = 1024 * 4 * identity.BLOCK_UNITS

_decode_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode


def parse(kind: chat.Kind, body: bytes, stripped: frozenset[str]) -> Steps[chat.Generation]:
    """As `chat.parse`. Long texts are UTF-8 `bytes`, and values of messages that are larger still stay raw."""
    if len(body) <= LARGE_BYTES:
        return chat.parse(kind, body, stripped)
    yield
    fields = chat.decode_fields(body)
    yield
    is_rewritten = chat.take_out(fields, stripped)
    yield
    messages: list[dict[str, Any]] = []
    prompt: str | bytes | list[int] = ""
    several = False
    if kind == "chat":
        messages = yield from _messages(chat.given_messages(fields))
    else:
        raw = chat.given_prompt(fields)
        prompt, several = ("", True) if raw is None else (yield from _prompt(raw))
    yield
    return chat.view(kind, body, fields, messages, prompt, is_rewritten=is_rewritten, several=several)


def parse_opaque(body: bytes, stripped: frozenset[str]) -> Steps[Opaque]:
    """As `opaque.parse_opaque`."""
    if len(body) <= LARGE_BYTES:
        return opaque.parse_opaque(body, stripped)
    yield
    fields = chat.decode_fields(body)
    yield
    is_rewritten = chat.take_out(fields, stripped)
    yield
    return opaque.opaque(body, fields, is_rewritten=is_rewritten)


def _messages(raw: msgspec.Raw) -> Steps[list[dict[str, Any]]]:
    try:
        parts = (yield from stepwise.items(raw)) if stepwise.first(raw) == b"[" else None
        if parts is None:
            raise msgspec.ValidationError("Expected `array` of less than a few hundred thousand messages")
        found: list[dict[str, Any]] = []
        for group in stepwise.groups(parts):
            if stepwise.is_large(group[0]):
                found.append((yield from _large_message(group[0])))
            else:
                found += _decode_messages(b"[%b]" % b",".join(group))
            yield
    except chat.BROKEN as error:
        raise chat.wrong_messages(error) from None
    return found


def _large_message(raw: msgspec.Raw) -> Steps[dict[str, Any]]:
    members = (yield from stepwise.members(raw)) if stepwise.first(raw) == b"{" else None
    if members is None:
        raise msgspec.ValidationError("Expected `object` with less than a few thousand members")
    message: dict[str, Any] = {}
    for name, member in members.items():
        is_read = name == "content" or stepwise.first(member) == b'"' or not stepwise.is_large(member)
        message[name] = (yield from stepwise.value(member)) if is_read else member
    return message


def _prompt(raw: msgspec.Raw) -> Steps[tuple[str | bytes | list[int], bool]]:
    """The one sequence of `prompt`, and whether there are several."""
    try:
        prompt = yield from stepwise.value(raw)
    except chat.BROKEN as error:
        raise chat.wrong_prompt(error) from None
    if isinstance(prompt, str | bytes):
        return prompt, False
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | bytes | list):
        prompt = prompt[0]
    if isinstance(prompt, str | bytes):
        return prompt, False
    if isinstance(prompt, msgspec.Raw):
        return "", True  # hundreds of thousands
    if not isinstance(prompt, list):
        raise chat.wrong_prompt("Expected `str | array`")
    for start in range(0, len(prompt), _IDS_AT_ONCE):
        for item in prompt[start : start + _IDS_AT_ONCE]:
            if type(item) is not int:
                if isinstance(item, str | bytes | list):
                    return "", True  # what is wrong with one of them, the engine says
                raise chat.wrong_prompt("Expected `int | str | array`")
        yield
    return prompt, False


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
        if group and (parts is not None or len(group) >= _MESSAGES_AT_ONCE or text_bytes > _TEXT_BYTES):
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
    if isinstance(prompt, str) or len(prompt) <= _IDS_AT_ONCE:
        return identity.raw_steps(scope, prompt)
    unit_bytes = 1 if isinstance(prompt, bytes) else 4
    if isinstance(prompt, bytes):
        data = prompt
    else:
        pieces = []
        for start in range(0, len(prompt), _IDS_AT_ONCE):
            pieces.append(identity.raw_bytes(prompt[start : start + _IDS_AT_ONCE]))
            yield
        data = b"".join(pieces)
    yield
    blocks = [identity.raw_start(scope, unit_bytes)]
    for start in range(0, len(data), _ROLLED_BYTES):
        yield
        blocks += identity.roll(blocks[-1], data[start : start + _ROLLED_BYTES], identity.BLOCK_UNITS * unit_bytes)[1:]
    return identity.RawSteps(data=data, unit_bytes=unit_bytes, blocks=tuple(blocks))
