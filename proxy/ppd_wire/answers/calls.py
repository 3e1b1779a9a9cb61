"""Tool calls of a stream, put together from their pieces.

Id, type and name come at the beginning of a call, its arguments in pieces; names may come in pieces, too. Pieces belong
to the call with their index, which may count from 1. Engines that give no index, or one index to every call, begin
the next call with another id or name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

_BODIES = ("function", "custom")


@dataclass(slots=True)
class _Open:
    """`index` orders the calls; that of a call without one is the place at which it began."""

    index: int
    call: dict[str, Any]


@dataclass(slots=True)
class Calls:
    """Feeds on the pieces in the order in which they come."""

    _opened: list[_Open] = field(default_factory=list)
    _last: dict[int, _Open] = field(default_factory=dict)
    """The call that goes on, by index."""

    @property
    def whole(self) -> list[dict[str, Any]]:
        """The calls as a JSON answer has them."""
        return [each.call for each in sorted(self._opened, key=lambda each: each.index)]

    def add(self, pieces: Sequence[dict[str, Any]]) -> None:
        """All pieces of one event."""
        seen: set[int | None] = set()
        for piece in pieces:
            told = piece.get("index")
            index = told if isinstance(told, int) else None
            known = self._last.get(index) if index is not None else self._opened[-1] if self._opened else None
            if known is None or _begins_another(known.call, piece, index, is_in_one_event=index in seen):
                known = _Open(len(self._opened) if index is None else index, {"function": {}})
                self._opened.append(known)
                if index is not None:
                    self._last[index] = known
            seen.add(index)
            _put(known.call, piece)


def _begins_another(
    known: dict[str, Any], piece: dict[str, Any], index: int | None, *, is_in_one_event: bool
) -> bool:  # fmt: skip
    """Some engines make up an id for every piece, so it takes a name as well."""
    if not any((piece.get(body) or {}).get("name") for body in _BODIES):
        return False
    ids = known.get("id"), piece.get("id")
    if all(ids) and ids[0] != ids[1]:
        return True
    has_arguments = any((known.get(body) or {}).get(name) for body in _BODIES for name in ("arguments", "input"))
    return is_in_one_event or (index is None and not piece.get("id") and has_arguments)


def _put(known: dict[str, Any], piece: dict[str, Any]) -> None:
    known.update({name: piece[name] for name in ("id", "type") if piece.get(name)})
    for body in _BODIES:
        told = piece.get(body)
        if not isinstance(told, dict):
            continue
        if body == "custom":
            known.pop("function", None)
        whole = known.setdefault(body, {})
        for name, value in told.items():
            if value is None:
                continue
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            whole[name] = whole.get(name, "") + text
