"""Large JSON texts in steps: generators that do one bounded piece of work between two `yield`s, so that whoever drives
them can let other requests have their turn.

What comes out is what the decoder would give in one go, with two exceptions: a long string comes as `bytes`, its text
in UTF-8, and what has too many members, or lies too deep, to be taken apart stays `msgspec.Raw`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeVar

import msgspec

from ppd_wire.json.structure import COSTLY_VALUES, MAX_FIELDS, SLICE_BYTES, Structure

T = TypeVar("T")
Steps = Generator[None, None, T]

LARGE_BYTES: Final = 131072
"""Texts up to here are decoded in one go, and larger ones in pieces of this size: 15 ms for the worst of them."""
TEXT_BYTES: Final = 2 * 1024 * 1024
"""The pieces of a long string: 10 ms."""
MAX_ITEMS: Final = 400_000
"""Of one array that is taken apart in one go: 30 ms."""
MAX_LEVELS: Final = 6
"""What lies deeper stays raw: every level of a large text is looked through once."""

_decode: Final = msgspec.json.Decoder().decode
_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text: Final = msgspec.json.Decoder(str).decode


def first(raw: msgspec.Raw) -> bytes:
    """What kind of value it is, without a copy of it."""
    return bytes(memoryview(raw)[:1])


def is_large(raw: msgspec.Raw) -> bool:
    return memoryview(raw).nbytes > LARGE_BYTES


def value(raw: msgspec.Raw, level: int = 0) -> Steps[Any]:
    """The value of one JSON text. Raises msgspec.DecodeError or UnicodeDecodeError."""
    if not is_large(raw):
        return _decode(raw)
    yield
    kind = first(raw)
    if kind == b'"':
        return (yield from utf8(bytes(raw)))
    if kind == b"[" and level < MAX_LEVELS:
        return (yield from _list(raw, level))
    parts = (yield from members(raw)) if kind == b"{" and level < MAX_LEVELS else None
    if parts is None:
        return raw
    values: dict[str, Any] = {}
    for name, part in parts.items():
        values[name] = yield from value(part, level + 1)
    return values


def members(raw: msgspec.Raw) -> Steps[dict[str, msgspec.Raw] | None]:
    """Of an object; None where there are too many."""
    text = bytes(raw)
    if text.count(b":") > MAX_FIELDS and (yield from _commas(text)) > MAX_FIELDS:
        return None
    yield
    decoded = _members(text)
    yield
    return decoded


def items(raw: msgspec.Raw) -> Steps[list[msgspec.Raw] | None]:
    """Of an array; None where there are too many."""
    text = bytes(raw)
    if text.count(b",") > MAX_ITEMS and (yield from _commas(text)) > MAX_ITEMS:
        return None
    yield
    decoded = _items(text)
    yield
    return decoded


def _list(raw: msgspec.Raw, level: int) -> Steps[Any]:
    text = bytes(raw)
    if text.find(b"[", 1) < 0 and b"{" not in text and b'"' not in text:
        return (yield from _numbers(text))
    yield
    parts = yield from items(raw)
    if parts is None:
        return raw
    values: list[Any] = []
    for group in groups(parts):
        if is_large(group[0]):
            values.append((yield from value(group[0], level + 1)))
        else:
            values += _decode(b"[%b]" % b",".join(group))
        yield
    return values


def groups(parts: list[msgspec.Raw]) -> Generator[list[msgspec.Raw], None, None]:
    """Parts that can be decoded together, in order; a large one is alone."""
    group: list[msgspec.Raw] = []
    group_bytes = 0
    for part in parts:
        part_bytes = memoryview(part).nbytes
        if group and group_bytes + part_bytes > LARGE_BYTES:
            yield group
            group, group_bytes = [], 0
        group.append(part)
        group_bytes += part_bytes
    if group:
        yield group


def _numbers(text: bytes) -> Steps[list[Any]]:
    """An array without arrays, objects and strings, cut at its commas."""
    values: list[Any] = []
    start, end = 1, text.rindex(b"]")
    while (cut := text.find(b",", start + LARGE_BYTES, end)) >= 0:
        values += _decode(b"[%b]" % text[start:cut])
        start = cut + 1
        yield
    return values + [*_decode(b"[%b%b" % (b"" if start == 1 else b"0,", text[start:]))][start > 1 :]


def _commas(text: bytes) -> Steps[int]:
    """How many members the outermost array or object has, less one."""
    structure = Structure(max_depth=len(text), max_values=2 * COSTLY_VALUES * len(text))
    for start in range(0, len(text), SLICE_BYTES):
        structure.read(text[start : start + SLICE_BYTES])
        yield
    return structure.fields


def utf8(literal: bytes, piece_bytes: int = TEXT_BYTES) -> Steps[bytes]:
    """The text of a JSON string. `piece_bytes`: 24 or more, so that a pair of escapes fits in."""
    is_plain = b"\\" not in literal
    pieces: list[bytes] = []
    start, end = 1, len(literal) - 1
    while start < end:
        cut = end if end - start <= piece_bytes else _cut(literal, start, start + piece_bytes)
        piece = literal[start:cut]
        text = _text(b'"%b"' % piece)
        pieces.append(piece if is_plain else text.encode("utf-8", "surrogatepass"))
        start = cut
        yield
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _cut(literal: bytes, start: int, end: int) -> int:
    """The last place up to `end` that is not inside a character, an escape or a pair of escapes."""
    while literal[end] & 0xC0 == 0x80:
        end -= 1
    last = literal.rfind(b"\\", start, end)
    if last < 0 or end - last >= 12:
        return end
    run = last + 1 - start - len(literal[start : last + 1].rstrip(b"\\"))
    if run % 2 == 0:
        return end  # plain text behind an escaped backslash
    is_low = literal[last : last + 4].lower() in (b"\\udc", b"\\udd", b"\\ude", b"\\udf")
    return last - 6 if is_low and literal[last - 6 : last - 4] == b"\\u" else last
