"""Which headers travel: from the client to the legs, and from the decode leg back to the client.

Header names are lower-case bytes, as ASGI and the upstream parser give them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

_NOT_FORWARDED = HOP_BY_HOP | {
    b"host", b"content-length", b"content-type", b"expect",
    b"accept-encoding",  # the proxy reads the answer, so it asks for none
    b"x-request-id",  # each attempt has its own; duplicates from clients confuse engines (vllm#27723)
    b"x-admin-key",
}  # fmt: skip
_NOT_RETURNED = HOP_BY_HOP | {
    b"content-length", b"server", b"date", b"x-request-id", b"x-ppd-decision",
    b"content-encoding",  # what is passed on was read, so it has none, whatever the engine says
}  # fmt: skip

_NO_NAMES: frozenset[bytes] = frozenset()
_CREDENTIAL = re.compile(rb"auth|cookie|token|secret|passw|credential|jwt|assertion|signature|key$")


def named_hops(headers: Headers) -> frozenset[bytes]:
    """Further hop-by-hop headers that `Connection` names (RFC 9110, 7.6.1)."""
    named = [value for name, value in headers if name == b"connection"]
    return frozenset([token.strip().lower() for token in b",".join(named).split(b",")]) if named else _NO_NAMES


def forwarded(headers: Headers, authorization: bytes | None, *, is_trusted: bool = True) -> bytes:
    """The client's headers for a leg, as lines ending with CRLF.

    `authorization` replaces the client's own; without it the client's travels on. Nothing is invented. An engine that
    is not trusted gets neither, nor anything else that clients prove themselves with.
    """
    if not is_trusted:
        authorization = None
        headers = [pair for pair in headers if not is_credential(pair[0])]
    hops = named_hops(headers)
    lines = [
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name not in _NOT_FORWARDED
        and name not in hops
        and not (authorization is not None and name in (b"authorization", b"x-api-key"))
    ]
    if authorization is not None:
        lines.append(b"authorization: %b\r\n" % authorization)
    return b"".join(lines)


def is_credential(name: bytes) -> bool:
    """Whether a header is of the kind that clients prove themselves with: keys, tokens, cookies, by whatever name."""
    return _CREDENTIAL.search(name) is not None


def request_head(path: bytes, authority: str, request_id: str, forwarded_lines: bytes, body_bytes: int) -> bytes:
    """The head of one leg's request. `request_id` is the engine-side `X-Request-Id`."""
    return b"POST %b HTTP/1.1\r\nhost: %b\r\n%bcontent-type: application/json\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (  # noqa: E501
        path,
        authority.encode(),
        forwarded_lines,
        request_id.encode(),
        body_bytes,
    )


def returned(headers: Headers, extra: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The decode leg's headers as the client gets them, with the proxy's own."""
    kept = [pair for pair in headers if pair[0] not in _NOT_RETURNED]
    if len(kept) != len(headers) and (hops := named_hops(headers)):
        kept = [pair for pair in kept if pair[0] not in hops]
    kept += extra
    return kept


def find(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header."""
    for each, value in headers:
        if each == name:
            return value
    return None


def bearer(named: Mapping[bytes, bytes]) -> bytes | None:
    """The key a client sent: `Authorization: Bearer KEY`, or `x-api-key: KEY` as some clients do."""
    value = named.get(b"authorization")
    if value is not None:
        scheme, _, key = value.partition(b" ")
        return key.strip() if scheme.lower() == b"bearer" else None
    return named.get(b"x-api-key")
