"""The handoff protocols by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ppd_core.fleet.engine import HandoffName
from ppd_core.handoff.nixl import NIXL
from ppd_core.handoff.p2p_nccl import P2P_NCCL
from ppd_core.handoff.rules import Handoff
from ppd_core.handoff.shared_store import NONE

HANDOFFS: Mapping[HandoffName, Handoff] = MappingProxyType({each.name: each for each in (NIXL, P2P_NCCL, NONE)})
