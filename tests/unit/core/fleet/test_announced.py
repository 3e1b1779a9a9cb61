"""The networks that announced engines live in."""

from ipaddress import ip_network

import pytest

from ppd_core.fleet.announced import LOOPBACK, Networks, RejectedAnnouncement

OWN = Networks([*LOOPBACK, ip_network("10.0.0.0/24"), ip_network("fd00::/64")])


def reason(check, *args, **kwargs):
    with pytest.raises(RejectedAnnouncement) as caught:
        check(*args, **kwargs)
    return caught.value.reason


@pytest.mark.parametrize(
    "address", ["10.0.0.7:80", "127.0.0.1:1", "localhost:1", "[::1]:1", "::1:9", "[fd00::7]:1", "[::ffff:10.0.0.1]:1"]
)
def test_addresses_of_the_networks_are_taken(address):
    OWN.check_address(address, field="http_address")


@pytest.mark.parametrize(
    "address",
    ["10.0.1.7:80", "8.8.8.8:53", "169.254.169.254:80", "[fd01::1]:1", "[::ffff:10.0.1.1]:1", "0.0.0.0:1", "[::]:1",
     "engine.example:80", "localhost.example:80", "0x7f.1:80", "2130706433:80"],
)  # fmt: skip
def test_other_addresses_and_names_are_not(address):
    for field in ("http_address", "zmq_address"):
        with pytest.raises(RejectedAnnouncement, match=field) as caught:
            OWN.check_address(address, field=field)
        assert caught.value.reason == "foreign_address"
        assert repr(address) in str(caught.value)


def test_names_are_taken_where_every_address_is():
    Networks([ip_network("0.0.0.0/0")]).check_address("engine.example:80", field="http_address")


def test_a_sender_is_known_by_its_address():
    for peer in ("10.0.0.9", "127.0.0.1", "::1", "::ffff:10.0.0.9", "fd00::1"):
        OWN.check_sender(peer)
    for peer in ("10.0.1.9", "::ffff:10.0.1.9", "", "fe80::1%eth0", "nonsense"):
        assert reason(OWN.check_sender, peer) == "foreign_sender"
    Networks([ip_network("fe80::/10")]).check_sender("fe80::1%eth0")
