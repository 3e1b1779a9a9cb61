"""Tokens that have names instead of ids, and where two lists of them part as far as names can tell.

A name is no identity: an engine may call every half of a character "\ufffd", or nothing. Where it tells a token's
bytes, these are its name; bytes that are no text are spelled `bytes:\\xe4\\xbd`. What is called alike all the same may
differ, so the first different name counts only where the texts show that nothing before it does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Names = Sequence[str]
_HALF = "\ufffd"
_SPELLED = "bytes:"
_BYTE = re.compile(r"\\x([0-9a-f]{2})")
_MOST_PLACES = 1024


def name_of(name: str, spelling: bytes | None) -> str:
    """What a token is called whose engine says `name` and `told`, its bytes."""
    if not spelling:
        return name
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return _SPELLED + "".join(f"\\x{byte:02x}" for byte in spelling)


def is_unsure(name: str) -> bool:
    """Whether other tokens may have the same name."""
    return not name or _HALF in name


def may_be_one(names: Names, others: Names) -> bool:
    """Whether the first ones of two lists may be one token under two names: one tells bytes that are no text, the other
    is of an engine that does not tell them."""
    if not names or not others:
        return False
    kinds = sorted((is_unsure(name), name.startswith(_SPELLED)) for name in (names[0], others[0]))
    return kinds == [(False, True), (True, False)]


def are_of_one_kind(one: Names, text: str, other: Names, other_text: str) -> bool:
    """Whether names of two answers mean the same: not where those of one are pieces of its text, and those of the other
    are not, as where a space is a sign of the tokenizer's own. True where names do not show that."""
    kinds = _spells(one, text), _spells(other, other_text)
    return None in kinds or kinds[0] == kinds[1]


def _spells(names: Names, text: str) -> bool | None:
    """Whether the names, put together, are the text, or begin with it, as where an end has a name; None where names
    leave a doubt, or there are none."""
    if not names or not text or any(is_unsure(name) or name.startswith(_SPELLED) for name in names):
        return None
    return "".join(names).startswith(text)


def have_other_bytes(one: Names, other: Names) -> bool:
    """Whether two answers of the same text are not: their tokens spell other bytes, some of which are no text, as where
    both end within a character. Names that only cut the text elsewhere spell the same."""
    return is_spelled((*one, *other)) and spelled(one) != spelled(other)


def is_spelled(names: Names) -> bool:
    """Whether the names say more than a text does: some are bytes that are no text, and none leaves doubt."""
    return any(name.startswith(_SPELLED) for name in names) and not any(map(is_unsure, names))


def spelled(names: Names) -> bytes:
    """The bytes that the names spell, one after the other."""
    return b"".join(
        bytes(int(byte, 16) for byte in _BYTE.findall(name))
        if name.startswith(_SPELLED)
        else name.encode(errors="backslashreplace")
        for name in names
    )


def sure_tokens(names: Names, text: str, shared: int) -> int:
    """How many tokens lie within the first `shared` characters of `text`, by names that leave no doubt."""
    at = 0
    for count, name in enumerate(names):
        if is_unsure(name) or at + len(name) > shared or not text.startswith(name, at):
            return count
        at += len(name)
    return len(names)


def is_within(names: Names, count: int, text: str, shared: int) -> bool:
    """Whether the first `count` of an answer's tokens surely end within the first `shared` characters of its text,
    however much of it the unsure ones among them are."""
    if not any(map(is_unsure, names[:count])):
        return True
    ends = _ends(names[:count], text)
    backwards = _ends([name[::-1] for name in reversed(names[count:])], text[::-1])
    starts = {len(text) - end for end in backwards}
    places = ends & starts or ends  # what follows may be more than the text, as where an end has a name
    return bool(places) and max(places) <= shared


def _ends(names: Names, text: str) -> set[int]:
    """Where tokens with these names may end that begin with the text; nothing where they spell another one, or there
    are too many places."""
    places = {0}
    for name in names:
        places = _after(name, text, places)
        if len(places) > _MOST_PLACES:
            return set()
    return places


def _after(name: str, text: str, places: set[int]) -> set[int]:
    """Where a token may end that begins at one of these places. Half a character is one or none; a token without a
    name may be anything."""
    if not name and places:
        return set(range(min(places), len(text) + 1))
    for character in name:
        if character == _HALF:
            places = {end for at in places for end in (at, at + 1) if end <= len(text)}
        else:
            places = {at + 1 for at in places if text.startswith(character, at)}
    return places
