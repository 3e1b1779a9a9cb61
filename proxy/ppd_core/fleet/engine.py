"""What an engine is, and which engines there are. Owns no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

Role = Literal["prefill", "decode", "aggregated"]
HandoffName = Literal["nixl", "p2p_nccl", "none"]
EngineState = Literal["up", "unhealthy", "down", "draining"]
EngineSource = Literal["static", "announced", "registered"]

ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")
HANDOFFS: tuple[HandoffName, ...] = ("nixl", "p2p_nccl", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One vLLM server as the policies see it. `id` is `host:port` of its HTTP address and the `engine` metric label.

    `incarnation` grows each time the engine comes back from being down: a conversation's home is an engine *and* an
    incarnation, because a restarted engine holds no KV. `is_ppd` says that the engine has a connector which takes
    direct requests. `is_trusted`: it may see the engine key and what clients prove themselves with; nobody vouches for
    an engine that only announced itself.
    """

    id: str
    url: str
    role: Role
    handoff: HandoffName
    state: EngineState
    source: EngineSource
    zmq_address: str | None = None
    incarnation: int = 0
    is_ppd: bool = False
    is_trusted: bool = True


class FleetView(msgspec.Struct, frozen=True, kw_only=True):
    """The engines that can take new requests now (state `up` or `unhealthy`), by role, each tuple ordered by id.
    `unhealthy` are the ids of those whose last answers all failed: taken where there is no other."""

    prefill: tuple[Engine, ...] = ()
    decode: tuple[Engine, ...] = ()
    aggregated: tuple[Engine, ...] = ()
    unhealthy: frozenset[str] = frozenset()


Loads = Mapping[str, int]
"""In-flight tokens by engine id; an absent engine has none."""
