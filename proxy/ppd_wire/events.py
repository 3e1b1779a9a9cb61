"""Server-sent events, read by field as the HTML standard says (section 9.2.6, "Interpreting an event stream").

Bytes go in as they come, whole events come out. Lines may end with LF, CR or CRLF, also mixed, and a CRLF may come in
two reads; what comes out has LF only. No IO. Knows nothing of what an event is about.
"""

from __future__ import annotations

import msgspec

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""An event that is longer, ended or not, is none: what waits for its end stays in memory."""

_BOM = b"\xef\xbb\xbf"
_LF = 10


class Event(msgspec.Struct, frozen=True, gc=False):
    """`raw` is the event with the empty line that ends it, `name` what its `event` field says, `data` its data lines
    joined. Without data it is no event to a client: a comment, or fields that say nothing by themselves."""

    raw: bytes
    name: bytes
    data: bytes

    def with_data(self, data: bytes) -> Event:
        """The same event, saying something else on one line."""
        lines = [line for line in self.raw[:-2].split(b"\n") if line.partition(b":")[0] != b"data"]
        raw = b"".join([line + b"\n" for line in lines]) + frame(data)
        return Event(raw, self.name, data)


class EventReader:
    """Reads one stream. What is incomplete at its end is no event, as the standard says.

    The work is linear in the bytes, however they are cut: nothing is searched twice.
    """

    __slots__ = ("_before", "_is_after_cr", "is_too_long", "unfinished")

    def __init__(self) -> None:
        self._before: bytes | None = b""
        """The stream's first bytes while they may be a BOM; None when that is decided."""
        self._is_after_cr = False
        self.unfinished = bytearray()
        """What has come of an event that has not ended; empty between events. For others to look at."""
        self.is_too_long = False
        """An event is longer than MAX_EVENT_BYTES: it and everything after it are lost."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that end in `data`, in order."""
        if self.is_too_long:
            return []
        if (
            data.startswith(b"data: ")
            and data.find(b"\n") == len(data) - 2 <= MAX_EVENT_BYTES
            and data[-1] == _LF
            and not self.unfinished
            and not self._before
            and data.find(b"\r") < 0
        ):
            self._before = None
            return [Event(data, b"", data[6:-2])]  # one event on one line, as vLLM sends them
        if self._before is not None:
            data = self._without_bom(self._before + data)
        if b"\r" in data or (self._is_after_cr and data):
            data = self._with_plain_ends(data)
        unfinished = self.unfinished
        if unfinished:
            start = len(unfinished) - 1
            unfinished += data
            if unfinished.find(b"\n\n", start) < 0:
                self._bound(len(unfinished) - 1)
                return []
            data = bytes(unfinished)
            unfinished.clear()
        *blocks, rest = data.split(b"\n\n")
        events: list[Event] = []
        for block in blocks:
            self._bound(len(block))
            if self.is_too_long:
                return events
            if block := block.lstrip(b"\n"):
                events.append(_read(block))
        unfinished += rest.lstrip(b"\n")
        self._bound(len(unfinished) - 1)  # its last line's end may be in it
        return events

    def _bound(self, size_bytes: int) -> None:
        if size_bytes > MAX_EVENT_BYTES:
            self.is_too_long = True
            self.unfinished.clear()

    def _without_bom(self, data: bytes) -> bytes:
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._before = data
            return b""
        self._before = None
        return data.removeprefix(_BOM)

    def _with_plain_ends(self, data: bytes) -> bytes:
        """A CR ends its line at once; an LF that comes first in the next read belongs to it."""
        if self._is_after_cr:
            data = data.removeprefix(b"\n")
        self._is_after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def frame(data: bytes, name: bytes = b"") -> bytes:
    """An event on the wire; its data is one line."""
    line = b"data: " + data + b"\n\n"
    return b"event: " + name + b"\n" + line if name else line


def payloads(stream: bytes) -> list[bytes]:
    """The data of the events of a stream as a relay has passed it on (LF, one line of data each), without `[DONE]`."""
    data = (event[5:].strip() for event in stream.split(b"\n\n") if event.startswith(b"data:"))
    return [each for each in data if each != b"[DONE]"]


def _read(block: bytes) -> Event:
    """An event from its lines, not empty, without the empty line that ends it."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block + b"\n\n", b"", block[6:])
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(block + b"\n\n", name, b"\n".join(data))
