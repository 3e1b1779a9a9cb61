"""What texts among the settings must be."""

from __future__ import annotations

import ipaddress

from ppd_core.fleet.address import parse_url
from ppd_shell.settings import Form
from ppd_wire.errors import BadRequest


def _url(text: str) -> str | None:
    try:
        return parse_url(text.strip())[1]
    except BadRequest:
        return None


def _network(text: str) -> str | None:
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        return None


URL = Form("an engine's URL, http://HOST:PORT or https://HOST:PORT without a path", _url, "URL")
NETWORK = Form("a network such as 10.0.0.0/8 or fd00::/8, its host bits zero", _network, "CIDR")
