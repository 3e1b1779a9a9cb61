"""One streamed answer on its way to the client: what is the same in every dialect.

Rules kept here:
1. Nothing goes out before the first *decisive* event: content, or the answer's end. An error before it becomes a
   status, and another engine may be tried.
2. An error event, and the event that ends an answer, are the last that the client gets. What the engine sends behind
   them, a reset of the connection included, is no part of the answer.
3. An event that cannot be read cannot be filtered either, and is not passed on: the answer is broken.
No IO, no clock.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from ppd_wire.answers.answer import EngineAnswer
from ppd_wire.answers.engine_errors import BROKEN_STATUS
from ppd_wire.events import MAX_EVENT_BYTES, Event, EventReader

MAX_HELD_BYTES = 2 * MAX_EVENT_BYTES


@mypyc_attr(allow_interpreted_subclasses=True)
class Relay:
    """Feeds on the bytes of a decode leg, yields the bytes for the client.

    `is_decisive` turns true once when rule 1 is met; before that `feed` returns nothing. `is_over` says that nothing
    more will come, for one of three reasons: `is_done` (the answer is complete), `error` (the engine said so: the JSON
    body that the error is without a stream, and its status), or `broken` (what is wrong with the engine's stream).
    """

    __slots__ = (
        "_held", "_held_bytes", "_hidden_id", "_public_id", "_reader",
        "broken", "error", "error_status", "has_more", "is_decisive", "is_done", "is_over",
    )  # fmt: skip

    def __init__(self, *, hidden_id: bytes, public_id: bytes) -> None:
        self._hidden_id = hidden_id
        self._public_id = public_id
        self._reader = EventReader()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.is_decisive = False
        self.is_over = False
        self.is_done = False
        self.has_more = False
        """The engine said more behind the answer's end; nobody gets it."""
        self.error: bytes | None = None
        self.error_status = BROKEN_STATUS
        self.broken: str | None = None

    def feed(self, data: bytes) -> bytes:
        """The bytes the client gets for `data`; an unfinished event waits for its end."""
        if self.is_over:
            self.has_more = True
            return b""
        out = self._held
        events = self._reader.feed(data)
        for event in events:
            shown = self._event(event) if event.data else event.raw
            if shown is not None:
                out.append(shown)
            if self.is_over:
                self.has_more = event is not events[-1] or bool(self._reader.unfinished)
                break
        else:
            if self._reader.is_too_long:
                self._break(f"the engine sent an event of more than {MAX_EVENT_BYTES} bytes")
        if not self.is_decisive:
            self._held_bytes += len(data)
            if self._held_bytes > MAX_HELD_BYTES and not self.is_over:
                self._break(f"the engine sent {self._held_bytes} bytes without any content")
            return b""
        self._held = []
        return b"".join(out)

    def takes_chunk(self, data: bytes) -> bool:
        """Whether `data` is one HTTP chunk of the engine, framing included, that may go to the client exactly as it
        is; then it counts as fed."""
        return False

    @property
    def next_number(self) -> int:
        """How many events came so far: in dialects that number them, the number of the next."""
        return 0

    def answer(self) -> EngineAnswer | None:
        """What the whole stream said; None where it is not complete, or nothing can be read from it."""
        raise NotImplementedError

    def _event(self, event: Event) -> bytes | None:
        """The event, which has data, as the client may see it; None when it may not. Calls the methods below."""
        raise NotImplementedError

    def _end(self) -> None:
        self.is_done = self.is_over = True

    def _fail(self, error: bytes, status: int) -> None:
        self.error, self.error_status = error, status
        self.is_over = True

    def _break(self, message: str) -> None:
        self.broken = message
        self.is_over = True
