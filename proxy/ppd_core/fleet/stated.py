"""What a registration may state about an engine; BadRequest names the field, the value and what would be right."""

from __future__ import annotations

import math

from ppd_core.fleet.engine import HANDOFFS, ROLES, HandoffName, Role
from ppd_wire.errors import BadRequest


def check_role(role: str) -> Role:
    for known in ROLES:
        if role == known:
            return known
    raise BadRequest(f"role is {role!r}; it must be one of {', '.join(ROLES)}", param="role")


def check_handoff(handoff: str | None) -> HandoffName | None:
    if handoff is None:
        return None
    for known in HANDOFFS:
        if handoff == known:
            return known
    raise BadRequest(f"handoff is {handoff!r}; it must be one of {', '.join(HANDOFFS)}", param="handoff")


def check_ttl(ttl_s: float | None) -> None:
    if ttl_s is None:
        return
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not math.isfinite(ttl_s) or ttl_s <= 0:
        raise BadRequest(f"ttl_s is {ttl_s!r}; it must be a number of seconds above 0", param="ttl_s")
