"""The handoff protocols by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ppd_proxy.core.types import HandoffName
from ppd_proxy.handoff.nixl import NIXL
from ppd_proxy.handoff.p2p_nccl import P2P_NCCL
from ppd_proxy.handoff.rules import Handoff
from ppd_proxy.handoff.shared_store import NONE

HANDOFFS: Mapping[HandoffName, Handoff] = MappingProxyType({each.name: each for each in (NIXL, P2P_NCCL, NONE)})
