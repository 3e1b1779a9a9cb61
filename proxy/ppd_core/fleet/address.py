"""How engines are addressed: base URLs and `host:port`, checked and brought to one form.

An engine's id is `host:port` of its HTTP address: host in lower case, port always written, IPv6 in brackets.
"""

from __future__ import annotations

import ipaddress
import re
from types import MappingProxyType
from urllib.parse import urlsplit

from ppd_wire.errors import BadRequest

_DEFAULT_PORTS = MappingProxyType({"http": 80, "https": 443})
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
_ADDRESS = re.compile(r"(?P<host>[^\s/@?#]+):(?P<port>[0-9]{1,5})")


def parse_url(url: str, *, field: str = "url") -> tuple[str, str]:
    """`(id, url)` of an engine's base URL, both with lower-case host and explicit port; raises BadRequest."""
    mistake = BadRequest(
        f"{field} is {url!r}; it must be http://HOST:PORT or https://HOST:PORT without a path", param=field
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError, TypeError):  # not a string, unbalanced brackets, a port that is no number
        raise mistake from None
    if parts.scheme not in _DEFAULT_PORTS or not host or parts.username is not None or parts.password is not None:
        raise mistake
    if parts.path not in ("", "/") or parts.query or parts.fragment or "\\" in url or url != url.strip():
        raise mistake
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    if ":" in host:
        if not _is_ipv6(host):
            raise mistake
        host = f"[{host}]"
    elif not _HOST_NAME.fullmatch(host):
        raise mistake
    if not port:
        raise mistake
    return f"{host}:{port}", f"{parts.scheme}://{host}:{port}"


def authority(url: str) -> str:
    """The `Host` header for a base URL of `parse_url`, written as aiohttp writes it for probes, scrapes and
    pass-through: without the port that is the scheme's own, without the dot of an absolute name. A virtual host must
    see one spelling."""
    scheme, _, address = url.partition("://")
    host, _, port = address.rpartition(":")
    host = host.rstrip(".")
    return host if int(port) == _DEFAULT_PORTS[scheme] else f"{host}:{port}"


def parse_address(address: str, *, field: str) -> tuple[str, str]:
    """`(id, url)` of an engine announced as `host:port`; raises BadRequest. vLLM writes IPv6 without brackets."""
    match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if match is None:
        raise BadRequest(f"{field} is {address!r}; it must be HOST:PORT", param=field)
    host = match["host"]
    if _is_ipv6(host):
        host = f"[{host}]"
    try:
        return parse_url(f"http://{host}:{match['port']}")
    except BadRequest:
        raise BadRequest(f"{field} is {address!r}; it must be HOST:PORT", param=field) from None


def check_zmq_address(address: str) -> None:
    """Check the address engines connect to for KV; raises BadRequest.

    It travels inside request ids whose parts are separated by underscores, so it cannot contain one.
    """
    field = "zmq_address"
    parse_address(address, field=field)
    if "_" in address:
        raise BadRequest(f"{field} is {address!r}; it must be HOST:PORT without an underscore", param=field)


def _is_ipv6(host: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(host), ipaddress.IPv6Address)
    except ValueError:
        return False
