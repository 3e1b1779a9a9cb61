"""What is wrong with a URL or with a text that is sent as a header."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""What no header has: control characters and lone surrogates."""
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


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
