"""Where a message goes."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """`address` (`host:port`) to dial, or the `identity` of a connection that came in."""

    address: str = ""
    identity: bytes = b""


def rank_address(address: str, rank: int) -> str:
    """Where rank `rank` of the engine listens whose rank 0 listens at `address`, as P2pNccl counts."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + rank}"
