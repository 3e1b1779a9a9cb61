"""PURE. What one client connection may send and how long it may take: HTTP/1.1 requests read from bytes, one at a time.

Bytes and times (seconds on any monotonic clock) go in; heads, bodies, refusals and due times come out. Knows no socket,
no server and no clock. The adapter (`protocol.py`) feeds what arrives, tells when an answer is complete, and asks when
the connection is overdue.

Rules:
1. One request is read at a time: what is sent ahead of an answer is held, and beyond `HELD_BYTES` the adapter stops
   reading.
2. A head is bounded in bytes, request line included, before anything of it is looked at.
3. A message ends where its head says, and two readings of that are refused: no obsolete folding, no line ends but CRLF,
   one length, one coding. An offer to upgrade changes nothing; the body is the body.
4. Fields of a trailer are read past: nothing that comes after a body speaks for the request.
5. Who sends nothing is waited for as long as `ClientLimits` say, and no longer.
"""

from __future__ import annotations

import math
import re
from enum import Enum
from types import MappingProxyType

from ppd_proxy.server.client_limits import ClientLimits
from ppd_proxy.server.heads import Known, RequestHead, malformed, read_fields, read_head, shown
from ppd_wire.errors import BadRequest, Refusal

HELD_BYTES = 65536
"""Sent ahead of an answer and kept for later; with more than this the client is not read any further."""
TAKEN_BYTES = 16384
"""What a client takes at least of an answer within `write_timeout_s`; one that takes a byte now and then takes none."""
MAX_CHUNK_LINE_BYTES = 1024
FRAMING_BYTES = 65536
"""What chunk sizes and their ends may take beyond the bytes they carry: chunks of a byte or two are work, no body."""

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_SMALL_SIZES = MappingProxyType({b"%x" % size: size for size in range(1, 1024)})
_BLANK_LINES = re.compile(rb"\A(?:\r\n)+")  # behind some clients' bodies; they count as the next head's
_BARE_END = re.compile(rb"(?<!\r)\n|\r(?![\n])(?!\Z)")


class ReadPhase(Enum):
    HEAD = "head"
    BODY = "body"
    CHUNK_LINE = "chunk line"
    CHUNK = "chunk"
    TRAILER = "trailer"
    WHOLE = "whole"
    """The request is complete, its answer is not."""


_HEAD, _BODY, _CHUNK_LINE_PHASE, _CHUNK, _, _WHOLE = ReadPhase


class ClientGuard:
    """One connection. After `feed`, ask `head` while the phase is HEAD and `body` behind a head."""

    __slots__ = (
        "_buffer", "_framing_left", "_known", "_left", "_limits", "_moved_at", "_scanned", "_unsent_bytes", "due_at",
        "phase",
    )  # fmt: skip

    def __init__(self, limits: ClientLimits, now: float) -> None:
        self._limits = limits
        self._buffer = b""
        self._known: Known | None = None
        self._scanned = 0
        self._left = 0
        self._framing_left = 0
        self._unsent_bytes = 0
        self._moved_at = now
        self.phase = _HEAD
        self.due_at = now + limits.keep_alive_s

    @property
    def is_whole(self) -> bool:
        return self.phase is _WHOLE

    @property
    def is_idle(self) -> bool:
        """Nothing of a request has arrived."""
        return self.phase is _HEAD and not self._buffer.strip(b"\r\n")

    @property
    def is_full(self) -> bool:
        """So much is held behind the request that is being answered that the client should not be read."""
        return self.phase is _WHOLE and len(self._buffer) > HELD_BYTES

    @property
    def has_more(self) -> bool:
        """Bytes behind the request that is being answered."""
        return bool(self._buffer)

    def feed(self, data: bytes, now: float) -> None:
        if self.phase is _HEAD:
            if not self._buffer:
                self.due_at = now + self._limits.head_timeout_s
        elif self.phase is not _WHOLE:
            self.due_at = now + self._limits.body_timeout_s
        self._buffer = self._buffer + data if self._buffer else data

    def head(self, now: float) -> RequestHead | None:
        """The next request, None while its head is not complete; raises BadRequest."""
        buffer = self._buffer
        start = len(buffer) - len(_BLANK_LINES.sub(b"", buffer)) if buffer[:1] == b"\r" else 0
        end = buffer.find(b"\r\n\r\n", max(start, self._scanned))
        limit = self._limits.max_head_bytes
        if end < 0 or end + 4 > limit:
            if len(buffer) > limit:
                raise self._refused(_head_too_large(buffer, limit))
            if _BARE_END.search(buffer, max(0, self._scanned - 1)):
                raise self._refused(malformed("a line of the head does not end with CR LF"))
            self._scanned = max(start, len(buffer) - 3)
            return None
        self._scanned = 0
        self._buffer = buffer[end + 4 :]
        text = buffer[start:end]
        head = self._known.again(text) if self._known is not None else None
        if head is None:
            try:
                head = read_head(text)
            except BadRequest as error:
                raise self._refused(error) from None
            self._known = Known.of(text, head)
        if head.length == 0:
            self._finish()
        else:
            self.due_at = now + self._limits.body_timeout_s
            self.phase = _CHUNK_LINE_PHASE if head.length is None else _BODY
            self._left = head.length or 0
            self._framing_left = FRAMING_BYTES
        return head

    def body(self) -> bytes:
        """What has arrived of the request's body since the last call; raises BadRequest."""
        if self.phase is _BODY:
            data = self._buffer
            if len(data) < self._left:
                self._left -= len(data)
                self._buffer = b""
                return data
            data, self._buffer = data[: self._left], data[self._left :]
            self._finish()
            return data
        if self.phase in (_WHOLE, _HEAD):
            return b""
        try:
            return self._chunks()
        except BadRequest as error:
            raise self._refused(error) from None

    def _chunks(self) -> bytes:
        """The payload of the chunks in the buffer; each part of one is taken out as soon as it is complete."""
        parts: list[bytes] = []
        buffer, place = self._buffer, 0
        while self.phase is not _WHOLE:
            if self.phase is _CHUNK:
                part = buffer[place : place + self._left]
                parts.append(part)
                place += len(part)
                self._left -= len(part)
                self._framing_left = min(FRAMING_BYTES, self._framing_left + len(part))
                if self._left or len(buffer) < place + 2:
                    break
                if buffer[place : place + 2] != b"\r\n":
                    raise malformed("a chunk of the body is longer than it says")
                place += 2
                self.phase = _CHUNK_LINE_PHASE
            elif self.phase is _CHUNK_LINE_PHASE:
                place = self._small_chunks(buffer, place, parts)
                end = buffer.find(b"\r\n", place, place + MAX_CHUNK_LINE_BYTES)
                if end < 0:
                    line = buffer[place:]
                    if len(line) >= MAX_CHUNK_LINE_BYTES or _BARE_END.search(line):
                        raise malformed(f"{shown(line)} is no size of a chunk")
                    break
                size = _CHUNK_LINE.fullmatch(buffer, place, end)
                if size is None:
                    raise malformed(f"{shown(buffer[place:end])} is no size of a chunk")
                self._left = int(size[1], 16)
                self._framing_left -= end + 4 - place
                if self._framing_left < 0:
                    raise malformed("the chunks of the body are too small; send more bytes in each")
                place = end + 2
                self.phase = _CHUNK if self._left else ReadPhase.TRAILER
            else:
                after = self._trailer_end(buffer, place)
                if after is None:
                    break
                place = after
                self._finish()
        self._buffer = buffer[place:]
        return b"".join(parts)

    def _small_chunks(self, buffer: bytes, place: int, parts: list[bytes]) -> int:
        """Read past the plain small chunks that are here whole: tens of thousands can come at once."""
        left = self._framing_left
        while (end := buffer.find(b"\r\n", place, place + 5)) > 0:
            size = _SMALL_SIZES.get(buffer[place:end])
            after = end + 2 + (size or 0)
            left -= end + 4 - place
            if size is None or left < 0 or buffer[after : after + 2] != b"\r\n":
                break
            left = self._framing_left = min(FRAMING_BYTES, left + size)
            parts.append(buffer[end + 2 : after])
            place = after + 2
        return place

    def _trailer_end(self, buffer: bytes, place: int) -> int | None:
        if buffer[place : place + 2] == b"\r\n":
            return place + 2
        end = buffer.find(b"\r\n\r\n", place)
        limit = self._limits.max_head_bytes
        if (len(buffer) if end < 0 else end) - place > limit:
            message = f"the request's trailer is larger than {limit} bytes (--max-head-bytes)"
            raise BadRequest(message, status=431, reason=Refusal.HEAD_TOO_LARGE)
        if end < 0:
            if _BARE_END.search(buffer, place):
                raise malformed("a line of the trailer does not end with CR LF")
            return None
        read_fields(buffer[place:end])
        return end + 4

    def answered(self, now: float) -> None:
        """The answer is complete. The next request's time begins; of this one's body the rest is still read."""
        if self.phase is _WHOLE:
            self.phase = _HEAD
            self.due_at = now + (self._limits.head_timeout_s if self._buffer else self._limits.keep_alive_s)

    def postpone(self, now: float) -> None:
        """The client was not read for a while; its silence was ours."""
        self.due_at = now + self._limits.body_timeout_s

    def late(self) -> BadRequest | None:
        """What a client that is overdue is told; None: nothing was begun, so there is nothing to answer."""
        if self.is_idle:
            return None
        if self.phase is _HEAD:
            message = f"the request's head took longer than {self._limits.head_timeout_s:g} s (--head-timeout-s)"
        else:
            message = f"no byte of the body came for {self._limits.body_timeout_s:g} s (--body-timeout-s)"
        return self._refused(BadRequest(message, status=408, reason=Refusal.CLIENT_TIMEOUT))

    def is_stalled(self, unsent_bytes: int, now: float) -> bool:
        """Whether the client has taken next to nothing of the `unsent_bytes` of its answer for too long; to be asked
        often. More of them than before are new ones, which tell nothing."""
        taken_bytes = self._unsent_bytes - unsent_bytes
        if not unsent_bytes or taken_bytes < 0 or taken_bytes >= TAKEN_BYTES:
            self._unsent_bytes, self._moved_at = unsent_bytes, now
            return False
        return now - self._moved_at >= self._limits.write_timeout_s

    def _finish(self) -> None:
        self.phase = _WHOLE
        self.due_at = math.inf

    def _refused(self, error: BadRequest) -> BadRequest:
        self._buffer = b""
        self.due_at = math.inf
        return error


def _head_too_large(buffer: bytes, limit_bytes: int) -> BadRequest:
    is_url = buffer.find(b"\r\n", 0, limit_bytes) < 0
    part, status = ("URL is", 414) if is_url else ("head (request line and headers) is", 431)
    message = f"the request's {part} larger than {limit_bytes} bytes (--max-head-bytes)"
    return BadRequest(message, status=status, reason=Refusal.HEAD_TOO_LARGE)
