"""What is wrong with a URL or with a header."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""What no header has: control characters and lone surrogates."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2."""
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


def wrong_in_header(name: str, value: str) -> str | None:
    """A sentence; None where it can be sent. The value may be a secret and is not repeated."""
    if not _HEADER_NAME.fullmatch(name):
        return f"header {name!a}: a name has letters, digits and -, such as x-tenant"
    if UNSENDABLE.search(value):
        return f"header {name}: its value has a control character; it must be one line"
    return None


def wrong_in_url(url: str) -> str | None:
    """Why it is no URL of an engine; None where it is one."""
    if not url.startswith(("http://", "https://")):
        return "it begins with neither http:// nor https://"
    if re.search(r"\s", url) or UNSENDABLE.search(url):
        return "it has a space or a control character"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        if ":" in host:
            ipaddress.IPv6Address(host)
        elif not _HOST.fullmatch(host) or not host.encode("idna"):
            return f"{host!a} is no host name"
    except ValueError as error:
        return str(error)
    return "port 0 cannot be reached" if port == 0 else None
