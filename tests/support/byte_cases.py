"""What clients send, as bytes: whole requests, several at once, and what is none."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\n"
LENGTH = b"Content-Length: 5\r\n"
CODED = b"Transfer-Encoding: chunked\r\n"
BODY = b"hello"
CHUNKS = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
WHOLE = POST + LENGTH + b"\r\n" + BODY
CHUNKED = POST + CODED + b"\r\n" + CHUNKS
EXPECT = b"Expect: 100-continue\r\n"
CLOSE = b"Connection: close\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


def _get(target: bytes = b"/", *fields: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"%b %b HTTP/%b\r\n" % (method, target, version) + HOST + b"".join(fields) + b"\r\n"


def _chunks(body: bytes) -> bytes:
    return POST + CODED + b"\r\n" + body


CASES: Mapping[str, bytes] = MappingProxyType({
    # What a request asks
    "nothing": b"",
    "a GET": GET,
    "a GET with a query": _get(b"/a/b?c=d&e=%20f"),
    "a query that is empty": _get(b"/a?"),
    "a query with question marks": _get(b"/a?b?c=/"),
    "a path with escapes": _get(b"/a%2Fb/%C3%A9%20"),
    "a path with two slashes": _get(b"//a//b"),
    "a path with dots": _get(b"/a/../b/./c"),
    "a fragment": _get(b"/a?b#c"),
    "a URL": _get(b"http://other:81/a?b"),
    "a URL without a path": _get(b"http://other"),
    "an OPTIONS for the server": _get(b"*", method=b"OPTIONS"),
    "a DELETE": _get(method=b"DELETE"),
    "a method that nobody knows": _get(method=b"BREW"),
    "a method in lower case": _get(method=b"get"),
    "a HEAD": _get(method=b"HEAD"),
    "a HEAD of what has no length": _get(b"/chunks", method=b"HEAD"),
    "two HEADs and a GET": _get(method=b"HEAD") + _get(b"/chunks", method=b"HEAD") + GET,
    "an answer in chunks": _get(b"/chunks"),
    "an answer without content": _get(b"/204") + GET,
    "an answer that nothing changed": _get(b"/304") + GET,
    # Fields
    "no fields but the host": GET,
    "a field twice": _get(b"/", b"A: 1\r\nA: 2\r\n"),
    "a field without a value": _get(b"/", b"A:\r\nB: \t \r\n"),
    "spaces around a value": _get(b"/", b"A: \t b c \t\r\n"),
    "a value without a space before it": _get(b"/", b"A:b\r\n"),
    "a value beyond ASCII": _get(b"/", b"A: \xc3\xa9\xff\r\n"),
    "names in every case": _get(b"/", b"aCCept: b\r\nX-A_b.c!: d\r\n"),
    # Bodies
    "a body": WHOLE,
    "an empty body": POST + b"Content-Length: 0\r\n\r\n",
    "a length with zeros before it": POST + b"Content-Length: 0005\r\n\r\n" + BODY,
    "a POST that tells no length": POST + b"\r\n",
    "a GET with a body": _get(b"/", LENGTH) + BODY,
    "a body of all bytes": POST + b"Content-Length: 256\r\n\r\n" + bytes(range(256)),
    "a body that is a request": POST + b"Content-Length: %d\r\n\r\n" % len(GET) + GET,
    "a body that is shorter than it says": POST + LENGTH + b"\r\nhel",
    "a body that is longer than it says": WHOLE + b"!\r\n\r\n",
    "chunks": CHUNKED,
    "no chunks": _chunks(b"0\r\n\r\n"),
    "a coding in upper case": POST + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNKS,
    "chunk sizes in every case": _chunks(b"A\r\n0123456789\r\n0b\r\n01234567890\r\n00\r\n\r\n"),
    "chunks with extensions": _chunks(b'2;a=b\r\nhe\r\n3;c="d"\r\nllo\r\n0;e\r\n\r\n'),
    "chunks that hold line ends": _chunks(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"),
    "chunks with a trailer": _chunks(b"2\r\nhe\r\n0\r\nA: b\r\n\r\n") + GET,
    "chunks that do not end": _chunks(b"2\r\nhe\r\n"),
    "half a head": b"GET / HTTP/1.1\r\nHos",
    # Expect
    "an expectation": POST + LENGTH + EXPECT + b"\r\n" + BODY,
    "an expectation in other letters": POST + LENGTH + b"EXPECT: 100-Continue\r\n\r\n" + BODY,
    "an expectation of chunks": POST + CODED + EXPECT + b"\r\n" + CHUNKS,
    "an expectation without a body": _get(b"/", EXPECT),
    "an expectation that is not met": POST + LENGTH + EXPECT + b"\r\n",
    "an expectation that nobody knows": POST + LENGTH + b"Expect: tea\r\n\r\n" + BODY,
    "an expectation of HTTP/1.0": POST.replace(b"1.1", b"1.0") + LENGTH + EXPECT + b"\r\n" + BODY,
    # Several
    "three sent ahead": GET + _get(b"/2") + _get(b"/3"),
    "bodies sent ahead": WHOLE + CHUNKED + GET + WHOLE,
    "chunked answers to what was sent ahead": _get(b"/chunks") + _get(b"/chunks/2") + GET,
    "the last one says so": GET + _get(b"/2", CLOSE),
    "one behind the last": _get(b"/", CLOSE) + GET,
    "close among others": _get(b"/", b"Connection: x, CLOSE\r\n") + GET,
    "keep-alive": _get(b"/", b"Connection: keep-alive\r\n") + GET,
    "a blank line before": b"\r\n" + GET,
    "blank lines between": WHOLE + b"\r\n\r\n" + GET,
    # HTTP/1.0
    "HTTP/1.0": _get(version=b"1.0"),
    "HTTP/1.0 without a host": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.0 that would be kept": _get(b"/", b"Connection: keep-alive\r\n", version=b"1.0") + GET,
    "HTTP/1.0 with a body": _get(b"/p", LENGTH, method=b"POST", version=b"1.0") + BODY,
    "HTTP/1.0 and no length": _get(b"/chunks", version=b"1.0"),
    "a HEAD of HTTP/1.0 and no length": _get(b"/chunks", method=b"HEAD", version=b"1.0"),
    # Offers to upgrade
    "an offer to upgrade": _get(b"/", UPGRADE),
    "an offer to upgrade with a body": POST + UPGRADE + LENGTH + b"\r\n" + BODY,
    "an offer to upgrade, and another request": _get(b"/", UPGRADE) + GET,
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + GET,
    # What is no request
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "HTTP/1.2": _get(version=b"1.2"),
    "HTTP/2.0": _get(version=b"2.0"),
    "a version in lower case": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the target": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the target": _get(b"/a b"),
    "a byte beyond ASCII in the target": _get(b"/\xc3\xa9"),
    "a target that is neither path nor URL": _get(b"a"),
    "a space before the method": b" " + GET,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": _get(b"/", b"Host: b\r\n"),
    "lines that end with LF": GET.replace(b"\r", b""),
    "one line that ends with LF": GET.replace(b"\r\n", b"\n", 1),
    "a CR in a value": _get(b"/", b"A: b\rc\r\n"),
    "a NUL in a value": _get(b"/", b"A: b\0c\r\n"),
    "a control character in a value": _get(b"/", b"A: b\x01c\r\n"),
    "a folded line": _get(b"/", b"A: b\r\n c\r\n"),
    "a space before the colon": _get(b"/", b"A : b\r\n"),
    "a field without a colon": _get(b"/", b"Nonsense\r\n"),
    "a field without a name": _get(b"/", b": b\r\n"),
    "a name with a space": _get(b"/", b"A B: c\r\n"),
    "a head that is too large": _get(b"/", b"A: " + b"b" * 2048 + b"\r\n"),
    "a target that is too large": _get(b"/" + b"a" * 2100),
    "something after a request": GET + b"\0\0\0\0\r\n\r\n",
    # What may be read in two ways
    "two lengths": POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "the same length twice": POST + LENGTH + LENGTH + b"\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\n" + BODY,
    "a length below zero": POST + b"Content-Length: -5\r\n\r\n" + BODY,
    "a length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\n" + BODY,
    "a length of forty digits": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
    "no digits of a length": POST + b"Content-Length:\r\n\r\n" + BODY,
    "a length and chunks": POST + LENGTH + CODED + b"\r\n" + CHUNKS,
    "chunks and a length": POST + CODED + LENGTH + b"\r\n" + CHUNKS,
    "a coding that nobody knows": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "a coding behind chunks": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "a coding twice": POST + CODED + CODED + b"\r\n" + CHUNKS,
    "a coding of HTTP/1.0": POST.replace(b"1.1", b"1.0") + CODED + b"\r\n" + CHUNKS,
    "a chunk without a size": _chunks(b"\r\nhe\r\n0\r\n\r\n"),
    "a chunk size with a sign": _chunks(b"+2\r\nhe\r\n0\r\n\r\n"),
    "a chunk size with 0x": _chunks(b"0x2\r\nhe\r\n0\r\n\r\n"),
    "a chunk size that is none": _chunks(b"g\r\nhe\r\n0\r\n\r\n"),
    "a chunk size of forty digits": _chunks(b"f" * 40 + b"\r\nhe\r\n0\r\n\r\n"),
    "a chunk size with spaces": _chunks(b"2 \r\nhe\r\n0\r\n\r\n"),
    "a chunk size that ends with LF": _chunks(b"2\nhe\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": _chunks(b"2\r\nhello\r\n0\r\n\r\n"),
    "a chunk that ends with LF": _chunks(b"2\r\nhe\n0\r\n\r\n"),
    "a trailer that is none": _chunks(b"2\r\nhe\r\n0\r\nA\0: b\r\n\r\n"),
})  # fmt: skip
