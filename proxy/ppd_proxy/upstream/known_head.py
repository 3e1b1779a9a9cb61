"""How an engine's whole answers begin: a head that was read need not be read again. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from ppd_wire.headers import Headers

_OK = b"HTTP/1.1 200 "
_VARYING = re.compile(
    rb"(?i:(\r\ndate:[\t ]*)[^\r\n]{29}(?=\r\n))|(?i:(\r\ncontent-length:[\t ]*)[0-9]{1,18}(?=\r\n))"
)
_DATE_HOLE, _LENGTH_HOLE = b"\x01", b"\x02"
"""No head that the parser takes has these."""
MAX_KNOWN_BYTES = 2048


class KnownHead:
    """The head of a whole answer with status 200. The next one on the connection mostly differs in nothing but its
    length and its date, of which neither travels on."""

    __slots__ = ("_match", "headers")

    def __init__(self, match: Callable[[bytes], re.Match[bytes] | None], headers: Headers) -> None:
        self._match = match
        self.headers = headers
        """Those of the first one; nobody changes them."""

    @classmethod
    def of(cls, head: bytes, headers: Headers) -> KnownHead | None:
        """None for a head that does not say its length once, or is long."""
        names = [name for name, _ in headers]
        if names.count(b"content-length") != 1 or b"transfer-encoding" in names or not head.startswith(_OK):
            return None
        return cls(_pattern(_VARYING.sub(_hole, head)), headers) if len(head) <= MAX_KNOWN_BYTES else None

    def body(self, data: bytes) -> bytes | None:
        """The body of an answer with such a head; None for all else."""
        match = self._match(data)
        if match is None:
            return None
        end = match.end()
        return data[end:] if len(data) - end == int(match[1]) else None


def _hole(varying: re.Match[bytes]) -> bytes:
    """In place of a date, or of a length."""
    return varying[1] + _DATE_HOLE if varying[1] is not None else varying[2] + _LENGTH_HOLE


@lru_cache(maxsize=256)
def _pattern(head: bytes) -> Callable[[bytes], re.Match[bytes] | None]:
    pattern = re.escape(head).replace(_DATE_HOLE, rb"[^\r\n]{29}").replace(_LENGTH_HOLE, rb"([0-9]{1,18})", 1)
    return re.compile(pattern).match
