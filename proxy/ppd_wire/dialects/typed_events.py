"""What the streams of `/v1/messages` and `/v1/responses` have in common: every event says its `type`. No IO."""

from __future__ import annotations

import msgspec

from ppd_wire.answers.removal import take_out_handoff
from ppd_wire.dialects.relay import Relay
from ppd_wire.events import Event
from ppd_wire.json.broken import BROKEN
from ppd_wire.requests.generation import Fields, is_absent

_fields = msgspec.json.Decoder(Fields)
_text = msgspec.json.Decoder(str)


def read_object(raw: bytes | msgspec.Raw | None) -> Fields | None:
    """The members of a JSON object in UTF-8; None for anything else."""
    try:
        if raw is None:
            return None
        bytes(raw).decode()
        return _fields.decode(raw)
    except BROKEN:
        return None


class TypedRelay(Relay):
    """Without a `type` in its data an event is of the type that it is named."""

    __slots__ = ("_number",)

    nested = ""
    """The field of some events in which the whole answer stands."""

    def __init__(self, *, hidden_id: bytes, public_id: bytes) -> None:
        super().__init__(hidden_id=hidden_id, public_id=public_id)
        self._number = 0

    @property
    def next_number(self) -> int:
        return self._number

    def _event(self, event: Event) -> bytes | None:
        if event.data.strip() == b"[DONE]":
            return None  # of another dialect: it ends nothing here
        fields = read_object(event.data)
        kind = _type(event, fields)
        if kind == "error" or (fields is not None and not is_absent(fields, "error")):
            return self._failed(event, fields or {})
        if fields is None or not kind:
            self._break("the engine sent an event that is no JSON object with a type")
            return None
        self._number += 1
        shown = self._typed(kind, event, fields)
        self._number = _number(fields, self._number)
        return shown

    def _typed(self, kind: str, event: Event, fields: Fields) -> bytes | None:
        """An event that is no error, as the client may see it; says whether it is decisive, or the end."""
        raise NotImplementedError

    def _failed(self, event: Event, fields: Fields) -> bytes:
        """An error event, as the client may see it."""
        raise NotImplementedError

    def _shown(self, event: Event) -> Event:
        """Without engine-side ids and handoff parameters."""
        data = take_out_handoff(event.data, self.nested)
        if data is not event.data:
            event = event.with_data(data)
        raw = event.raw.replace(self._hidden_id, self._public_id)
        return Event(raw, event.name, data)


def _type(event: Event, fields: Fields | None) -> str:
    """An event that is named `error` is one, whatever its data is."""
    if event.name == b"error" or fields is None:
        return event.name.decode("latin-1")
    try:
        return _text.decode(fields["type"])
    except (KeyError, *BROKEN):
        return event.name.decode("latin-1")


def _number(fields: Fields, counted: int) -> int:
    """What follows the event's own `sequence_number`, where it has one."""
    raw = bytes(fields.get("sequence_number", b""))
    return int(raw) + 1 if raw.isdigit() and len(raw) < 10 else counted
