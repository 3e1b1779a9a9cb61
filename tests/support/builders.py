"""Engines, fleets and plans as short as a test can write them."""

from __future__ import annotations

from typing import Any

from ppd_core.fleet.engine import Engine, FleetView, HandoffName, Role
from ppd_core.policy.plan import DecisionReason, Plan

KEY = "0123456789abcdef0123456789abcdef"
"""An engine-side request id of one attempt."""


def engine(name: str, role: Role, *, handoff: HandoffName = "nixl", **facts: Any) -> Engine:
    """A live static engine; its id is `name:8000`, and it has a KV address where its protocol wants one."""
    facts.setdefault("zmq_address", f"{name}:21001" if handoff == "p2p_nccl" else None)
    return Engine(
        id=f"{name}:8000", url=f"http://{name}:8000", role=role, handoff=handoff,
        **{"state": "up", "source": "static", **facts},
    )  # fmt: skip


def prefill(name: str = "p1", **facts: Any) -> Engine:
    return engine(name, "prefill", **facts)


def decode(name: str = "d1", **facts: Any) -> Engine:
    return engine(name, "decode", **facts)


def aggregated(name: str = "a1", **facts: Any) -> Engine:
    return engine(name, "aggregated", **facts)


def fleet(*engines: Engine) -> FleetView:
    """The engines by role and ordered by id, as `ppd_core/fleet/fleet.py` shows them."""
    ordered = sorted(engines, key=lambda each: each.id)
    return FleetView(
        prefill=tuple(each for each in ordered if each.role == "prefill"),
        decode=tuple(each for each in ordered if each.role == "decode"),
        aggregated=tuple(each for each in ordered if each.role == "aggregated"),
    )


def pd_plan(p: str = "p1", d: str = "d1", *, handoff: HandoffName = "nixl") -> Plan:
    return Plan(
        route="pd", reason=DecisionReason.FIRST_TURN, turn=1, prefill=prefill(p, handoff=handoff),
        decode=decode(d, handoff=handoff),
    )  # fmt: skip


def direct_plan(d: str = "d1", *, handoff: HandoffName = "nixl") -> Plan:
    return Plan(route="direct", reason=DecisionReason.KNOWN_HISTORY, turn=2, decode=decode(d, handoff=handoff))


def aggregated_plan(name: str = "a1") -> Plan:
    return Plan(route="aggregated", reason=DecisionReason.NO_DECODE_ENGINE, turn=1, decode=aggregated(name))
