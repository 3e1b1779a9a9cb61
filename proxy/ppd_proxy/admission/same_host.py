"""Whether a request was made on this host by its operator: not elsewhere, nor by a web page in a browser here. Pure.

A page can send requests to loopback, and by DNS rebinding (its own name suddenly resolves to 127.0.0.1) read answers.
What browsers cannot leave out gives it away: `Origin`, `Sec-Fetch-Site`, `Host`, and a body's type. Every value of a
header counts, not only the last one.
"""

from __future__ import annotations

import ipaddress

from ppd_wire.errors import BadRequest, Refusal
from ppd_wire.headers import Headers

_LOCAL_PEERS = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""From where this host connects to itself. Service meshes use other loopback addresses for what they let in: Istio's
sidecar hands over other pods' requests from 127.0.0.6."""

_FORWARDED_BY = frozenset({
    b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip",
    b"fastly-client-ip", b"fly-client-ip", b"x-azure-clientip", b"x-appengine-user-ip", b"x-envoy-external-address",
    b"x-envoy-peer-metadata",
})  # fmt: skip
_FORWARDED_PREFIXES = (b"x-forwarded", b"x-original-")
_HTTP_PORT = ":80"
_SHOWN_CHARACTERS = 100


def check_same_host(address: str | None, headers: Headers) -> None:
    """Raises BadRequest (403, or 415 for a body's type) naming what is wrong; `address` is the peer's IP address."""
    if address not in _LOCAL_PEERS:
        raise _refusal(f"this request comes from {address or 'an unknown address'}")
    forwarding = _forwarded_by(headers)
    if forwarding is not None:
        raise _refusal(f"this request came through a proxy ({_shown(*forwarding)})")
    hosts = [value for name, value in headers if name == b"host"]
    for value in hosts or [b""]:
        if not _is_loopback_name(_plain(value)):
            raise _refusal(f"{_shown(b'host', value)} is not localhost or a loopback address")
    own = {f"http://{_plain(value)}" for value in hosts}
    for name, value in headers:
        if name == b"origin" and own != {_plain(value)}:
            raise _refusal(f"{_shown(name, value)} is another site than http://{_plain(hosts[0])}")
        if name == b"sec-fetch-site" and value.strip().lower() not in (b"same-origin", b"none"):
            raise _refusal(f"{_shown(name, value)} is a web page of another site")
    _check_type(headers)


def _check_type(headers: Headers) -> None:
    """A body is JSON and says so: pages can send other types without asking first."""
    if not any(name == b"transfer-encoding" or (name == b"content-length" and size != b"0") for name, size in headers):
        return
    for value in [value for name, value in headers if name == b"content-type"] or [b""]:
        if value.partition(b";")[0].strip().lower() != b"application/json":
            raise BadRequest(f"{_shown(b'content-type', value)}: send the body as application/json", status=415)


def _forwarded_by(headers: Headers) -> tuple[bytes, bytes] | None:
    for name, value in headers:
        if name in _FORWARDED_BY or name.startswith(_FORWARDED_PREFIXES):
            return name, value
    return None


def _plain(value: bytes) -> str:
    """A host or an origin as others compare it: lower case, without the default port."""
    return value.decode("latin-1").strip().lower().removesuffix(_HTTP_PORT)


def _is_loopback_name(host: str) -> bool:
    """`host` is what a `Host` header says, perhaps with a port."""
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:
        name = host
    elif not (port.isascii() and port.isdigit()):
        return False
    if name.removesuffix(".") == "localhost":
        return True
    is_bracketed = name.startswith("[") and name.endswith("]")
    try:
        ip = ipaddress.IPv6Address(name[1:-1]) if is_bracketed else ipaddress.IPv4Address(name.removesuffix("."))
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _shown(name: bytes, value: bytes) -> str:
    return f"{name.decode('latin-1')}: {value.decode('latin-1')[:_SHOWN_CHARACTERS]!r}"


def _refusal(why: str) -> BadRequest:
    return BadRequest(
        f"admin endpoints answer this host only, and {why}; start the proxy with --admin-key and send that key to use "
        "them from elsewhere",
        status=403,
        reason=Refusal.UNAUTHORIZED,
    )
