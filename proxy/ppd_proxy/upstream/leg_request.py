"""What a leg sends and where to, and how its answer is known. Pure values."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

from ppd_core.fleet.address import authority
from ppd_core.fleet.echoes import Expected
from ppd_wire.dialects.dialects import Dialect
from ppd_wire.dialects.relay import Relay
from ppd_wire.requests.asked import NOTHING, Asked


class Origin(msgspec.Struct, frozen=True):
    """Where an engine listens. `authority` is the `Host` header."""

    host: str
    port: int
    is_tls: bool
    authority: str


@lru_cache(maxsize=4096)
def parse_origin(url: str) -> Origin:
    """The origin of an engine's base URL, which `ppd_core/fleet/fleet.py` has checked."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    return Origin(parts.hostname or "", port, is_tls, authority(url))


class LegRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`relay` reads the stream that is asked for, None where none is. `is_retriable`: sending it twice does no harm, so
    a connection that the engine closed while idle is replaced once without anybody noticing. `is_fresh`: no idle
    connection is good enough."""

    origin: Origin
    head: bytes
    body: bytes
    relay: Relay | None
    dialect: Dialect
    is_retriable: bool
    asked: Asked = NOTHING
    is_fresh: bool = False
    expected: Expected | None = None
