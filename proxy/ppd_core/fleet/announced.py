"""What an announcement may be: the words for one that is refused, and the networks engines may announce themselves in.

The protocol has no keys, so these bounds are all there is between a stranger's packet and the fleet. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Literal

from ppd_core.fleet.address import parse_address
from ppd_core.fleet.engine import Engine

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RejectReason = Literal[
    "bad_frames", "not_msgpack", "not_a_map", "missing_field", "bad_field", "unknown_type",  # not understood
    "foreign_address", "foreign_sender", "named_by_operator", "too_many_engines",  # not accepted
]  # fmt: skip

LOOPBACK: tuple[Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


class RejectedAnnouncement(ValueError):
    """An announcement that is not understood or not accepted; `reason` is a short word to count by."""

    def __init__(self, message: str, reason: RejectReason) -> None:
        super().__init__(message)
        self.reason: RejectReason = reason


def objection(
    known: Engine | None, zmq_address: str, *, announced: int, max_announced: int, trust_announced: bool
) -> RejectedAnnouncement | None:
    """Why an announcement is not accepted; None where it is, or where it says nothing new.

    `known` is the engine at its HTTP address, `zmq_address` what it says of its KV, `announced` how many engines the
    fleet knows from announcements alone.
    """
    if known is None:
        if announced < max_announced:
            return None
        message = f"{announced} engines announced themselves already (--max-announced-engines)"
        return RejectedAnnouncement(message, "too_many_engines")
    is_p2p = known.handoff == "p2p_nccl"
    if known.source == "announced" or (is_p2p and (trust_announced or known.zmq_address == zmq_address)):
        return None
    message = (
        f"{known.id} is {known.source}, so its announcement changes nothing; do not name it, or register it with its "
        "zmq_address, or use --handoff p2p_nccl and --trust-announced"
    )
    return RejectedAnnouncement(message, "named_by_operator")


class Networks:
    """The networks that announced engines live in."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def __str__(self) -> str:
        return ", ".join(str(network) for network in self._networks)

    def check_address(self, address: str, *, field: str) -> None:
        """`address` is `host:port`, checked already. Raises RejectedAnnouncement."""
        host = parse_address(address, field=field)[0].rpartition(":")[0].strip("[]")
        if not self._holds(host):
            hint = "add its network with --discovery-allow" if _ip(host) else "announce an address, not a name"
            raise RejectedAnnouncement(f"{field} is {address!r}, which is not in {self}; {hint}", "foreign_address")

    def check_sender(self, peer: str) -> None:
        """`peer` is the IP address that a packet came from. Raises RejectedAnnouncement."""
        if not self._holds(peer):
            message = f"it came from {peer}, which is not in {self}; add that network with --discovery-allow"
            raise RejectedAnnouncement(message, "foreign_sender")

    def _holds(self, host: str) -> bool:
        ip = _ip("127.0.0.1" if host == "localhost" else host)
        if ip is None:  # where a name leads is decided elsewhere, anew with every connection
            return any(network.version == 4 and network.prefixlen == 0 for network in self._networks)
        return any(ip in network for network in self._networks)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip
