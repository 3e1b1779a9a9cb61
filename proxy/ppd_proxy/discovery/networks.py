"""The networks this host's own interfaces are in, as Linux tells them under /proc/net.

Elsewhere nothing is told, and only loopback counts. Read once at the start: an interface that comes later is not known.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ppd_core.fleet.announced import LOOPBACK, Network

_UP, _GATEWAY, _REJECT = 0x1, 0x2, 0x200
_OWN_IPV4 = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


def own_networks(proc: Path = Path("/proc/net")) -> tuple[Network, ...]:
    """Loopback, every network that is reached without a gateway, and every address of this host."""
    found = [
        *ipv4_routes(_text(proc / "route")), *ipv4_addresses(_text(proc / "fib_trie")),
        *ipv6_networks(_text(proc / "if_inet6")),
    ]  # fmt: skip
    # Link-local addresses are left out: what answers at 169.254.169.254 is a cloud's metadata, not an engine.
    own = [*LOOPBACK, *(each for each in found if not each.is_link_local and not each.is_multicast)]
    return (
        *ipaddress.collapse_addresses(each for each in own if isinstance(each, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(each for each in own if isinstance(each, ipaddress.IPv6Network)),
    )


def ipv4_routes(table: str) -> Iterator[Network]:
    """Networks of /proc/net/route, whose addresses are hexadecimal numbers in the machine's byte order."""
    for line in table.splitlines()[1:]:
        columns = line.split()
        flags, mask = int(columns[3], 16), _ipv4(columns[7])
        if flags & _UP and not flags & (_GATEWAY | _REJECT) and int(mask):
            yield ipaddress.IPv4Network(f"{_ipv4(columns[1])}/{mask}", strict=False)


def ipv4_addresses(trie: str) -> Iterator[Network]:
    """This host's addresses in /proc/net/fib_trie: an interface with a /32 address is in no network of the routes."""
    for address in _OWN_IPV4.findall(trie):
        yield ipaddress.IPv4Network(address)


def ipv6_networks(table: str) -> Iterator[Network]:
    """Networks of /proc/net/if_inet6: address, index, prefix length, scope, flags, name."""
    for line in table.splitlines():
        address, _, prefix, *_ = line.split()
        yield ipaddress.IPv6Network((bytes.fromhex(address), int(prefix, 16)), strict=False)


def _ipv4(word: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(word, 16).to_bytes(4, sys.byteorder))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
