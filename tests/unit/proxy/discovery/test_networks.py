"""Reading this host's networks from what Linux tells under /proc/net."""

import sys
from ipaddress import ip_network

import pytest

from ppd_proxy.discovery.networks import own_networks

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0000A8C0\t0100000A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
lo\t000010C6\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.9
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     |-- 100.64.3.7
        /32 host LOCAL
"""
IPV6 = """fd000000000000000000000000000009 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the routes above are those of a little-endian machine")
def test_networks_without_a_gateway_and_own_addresses_are_this_hosts(tmp_path):
    for name, text in (("route", ROUTES), ("fib_trie", TRIE), ("if_inet6", IPV6)):
        (tmp_path / name).write_text(text)
    wanted = ["10.0.0.0/24", "100.64.3.7/32", "127.0.0.0/8", "172.17.0.0/16", "::1/128", "fd00::/64"]
    assert own_networks(tmp_path) == tuple(ip_network(each) for each in wanted)


def test_where_nothing_is_told_only_loopback_counts(tmp_path):
    assert own_networks(tmp_path) == (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def test_this_machine_has_loopback_and_never_everything():
    networks = own_networks()
    assert networks[0].version == 4
    assert ip_network("127.0.0.0/8") in networks
    assert all(network.prefixlen > 0 for network in networks)
