"""How much a client may send, and how long it may take. A pure value."""

from __future__ import annotations

import msgspec


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`keep_alive_s`: without a byte of a request, the first included. `head_timeout_s`: from a head's first byte to
    its last. `body_timeout_s`: between two bytes of a body. `write_timeout_s`: with unsent bytes, none of which leaves.
    """

    max_head_bytes: int
    keep_alive_s: float
    head_timeout_s: float
    body_timeout_s: float
    write_timeout_s: float
