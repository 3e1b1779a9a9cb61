"""PURE. The head of an HTTP/1.1 request, read from bytes: what it says, or what is wrong with it.

Two readings of where a message ends are refused, as the rules in `guarding.py` say. Knows no connection.
"""

from __future__ import annotations

import re

import msgspec

from ppd_proxy.request.request import Envelope
from ppd_wire.errors import BadRequest, Refusal
from ppd_wire.headers import Headers

MAX_FIELDS = 500
MAX_LENGTH_DIGITS = 18
MAX_KNOWN_BYTES = 4096
"""Longer heads are not kept."""
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]+")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*(?:\r\n|\Z))*")
_LENGTH_LINE = re.compile(rb"\r\ncontent-length:[\t ]*([0-9]+)", re.IGNORECASE)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ONCE = (b"host", b"content-length", b"transfer-encoding")
_AGREEING = (b"authorization", b"x-api-key", b"x-admin-key")
"""Who asks: said twice only in the same words, because it depends on the reader which of them counts."""


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """One request without its body. `path` is raw; `length` is None for a body in chunks. `envelope` is for whoever
    makes one of it, to make it once: heads that differ in their length alone share it."""

    method: str
    path: bytes
    query: bytes
    version: str
    fields: Headers
    length: int | None
    keeps_alive: bool
    awaits_continue: bool
    envelope: list[Envelope] = msgspec.field(default_factory=list)
    own_length: tuple[int, bytes] | None = None
    """Where in `fields` the length stands, and what stands there, where the fields are those of another head."""

    @property
    def headers(self) -> Headers:
        """With lower-case names."""
        if self.own_length is None:
            return self.fields
        place, digits = self.own_length
        fields = self.fields.copy()
        fields[place] = (b"content-length", digits)
        return fields


class Known:
    """A head that was read. On a kept connection the next one mostly differs in nothing but the body's length."""

    __slots__ = ("_after", "_before", "_head", "_place")

    def __init__(self, before: bytes, after: bytes, head: RequestHead, place: int) -> None:
        self._before = before
        self._after = after
        self._head = head
        self._place = place

    @classmethod
    def of(cls, text: bytes, head: RequestHead) -> Known | None:
        """None for a head without a length, and for one that is too long to keep."""
        line = _LENGTH_LINE.search(text) if len(text) <= MAX_KNOWN_BYTES else None
        if line is None or head.length is None:
            return None
        names = [name for name, _ in head.fields]
        return cls(text[: line.start(1)], text[line.end(1) :], head, names.index(b"content-length"))

    def again(self, text: bytes) -> RequestHead | None:
        """The same head with another length; None for any other."""
        before, after, known = self._before, self._after, self._head
        digits = text[len(before) : len(text) - len(after)]
        if not (digits.isdigit() and len(digits) <= MAX_LENGTH_DIGITS and text == before + digits + after):
            return None
        return RequestHead(
            known.method, known.path, known.query, known.version, known.fields, int(digits), known.keeps_alive,
            known.awaits_continue, known.envelope, (self._place, digits),
        )  # fmt: skip


def read_head(head: bytes) -> RequestHead:
    """A head without the empty line behind it; raises BadRequest naming what is wrong with it."""
    first, _, fields = head.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise malformed("the first line is not METHOD TARGET HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise BadRequest("only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)
    headers = read_fields(fields)
    named = dict(headers)
    if len(named) != len(headers):
        _check_repeated(headers)
    path, query = _target(method, target)
    is_old = minor == b"0"
    if not is_old and b"host" not in named:
        raise malformed("the header host is missing")
    return RequestHead(
        method.decode("ascii"),
        path,
        query,
        "1.0" if is_old else "1.1",
        headers,
        _body_length(named, is_old),
        not is_old and not (b"connection" in named and _says_close(headers)),
        b"expect" in named and not is_old and named[b"expect"].lower() == b"100-continue",
    )


def read_fields(text: bytes) -> Headers:
    """The fields of a head or a trailer; raises BadRequest."""
    lines = text.split(b"\r\n") if text else []
    if len(lines) > MAX_FIELDS:
        raise BadRequest(f"the head has more than {MAX_FIELDS} fields", status=431, reason=Refusal.HEAD_TOO_LARGE)
    if _FIELDS.fullmatch(text) is None:
        raise malformed(_fault_of(lines))
    return [(name.lower(), value.strip()) for name, _, value in [line.partition(b":") for line in lines]]


def _fault_of(lines: list[bytes]) -> str:
    """What is wrong with the first field that is none."""
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            return f"the line {shown(line)} of the head is not NAME: VALUE"
        if _TOKEN.fullmatch(name) is None:
            return f"{shown(name)} is no name of a header: no spaces around it, no folded lines"
        if _FIELDS.fullmatch(line) is None:
            return f"{shown(value)} holds a control character, or a line end that is not CR LF"
    return "the head ends with an empty field"


def _check_repeated(headers: Headers) -> None:
    first: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in first and (name in _ONCE or (name in _AGREEING and value != first[name])):
            raise malformed(f"the header {name.decode()} comes twice")
        first.setdefault(name, value)


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target; a fragment is nobody's business but the client's."""
    if target[:1] != b"/" and target != b"*":
        if method == b"CONNECT":
            raise BadRequest("CONNECT is not served here: this is no forward proxy", status=405)
        match = _ABSOLUTE.match(target)
        if match is None:
            raise malformed("the request's target is neither a path nor a URL")
        target = b"/" + target[match.end() :].removeprefix(b"/")
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return path, query


def _body_length(named: dict[bytes, bytes], is_old: bool) -> int | None:
    """Bytes of the body; None: it comes in chunks."""
    coding = named.get(b"transfer-encoding")
    length = named.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise malformed("content-length and transfer-encoding come together; send one of them")
        if is_old or coding.lower() != b"chunked":
            raise malformed(f"the transfer-encoding {shown(coding)} is not understood; send chunked, with HTTP/1.1")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
        raise malformed(f"the content-length {shown(length)} is no number of bytes")
    return int(length)


def _says_close(headers: Headers) -> bool:
    named = b",".join([value for name, value in headers if name == b"connection"]).lower()
    return b"close" in named and b"close" in [token.strip() for token in named.split(b",")]


def malformed(what: str) -> BadRequest:
    return BadRequest(f"the request is not well-formed HTTP: {what}")


def shown(data: bytes) -> str:
    return repr(data[:40].decode("latin-1"))
