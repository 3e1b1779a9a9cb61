"""A request's body as `chat` and `identity` read it: small ones in one go, large ones in steps (see `stepwise`)."""

from __future__ import annotations

from typing import Any

import msgspec

from ppd_wire.json import stepwise
from ppd_wire.json.broken import BROKEN
from ppd_wire.json.stepwise import LARGE_BYTES, Steps
from ppd_wire.requests import generation as chat
from ppd_wire.requests import opaque
from ppd_wire.requests.opaque import Opaque

MESSAGES_AT_ONCE = 1000
IDS_AT_ONCE = 100_000

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
        messages: list[dict[str, Any]] = []
        for group in stepwise.groups(parts):
            if stepwise.is_large(group[0]):
                messages.append((yield from _large_message(group[0])))
            else:
                messages += _decode_messages(b"[%b]" % b",".join(group))
            yield
    except BROKEN as error:
        raise chat.wrong_messages(error) from None
    return messages


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
    except BROKEN as error:
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
    for start in range(0, len(prompt), IDS_AT_ONCE):
        for item in prompt[start : start + IDS_AT_ONCE]:
            if type(item) is not int:
                if isinstance(item, str | bytes | list):
                    return "", True  # what is wrong with one of them, the engine says
                raise chat.wrong_prompt("Expected `int | str | array`")
        yield
    return prompt, False
