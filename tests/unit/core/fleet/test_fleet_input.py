"""What the fleet takes as addresses, and how it refuses the rest: naming the field, the value and what is right."""

import pytest

from ppd_core.fleet.fleet import Fleet
from ppd_wire.errors import BadRequest

GOOD = {
    "url": "http://10.0.0.2:8200",
    "role": "decode",
    "handoff": None,
    "zmq_address": None,
    "ttl_s": None,
    "now": 0.0,
}


@pytest.fixture
def fleet():
    return Fleet(default_handoff="auto")


def announce(fleet, address):
    return fleet.announce(role="prefill", http_address=address, zmq_address="10.0.0.1:21001", is_ppd=False, now=0.0)


@pytest.mark.parametrize(
    ("url", "engine_id"),
    [
        ("http://host", "host:80"),
        ("https://host/", "host:443"),
        ("http://Host.Example:8000", "host.example:8000"),
        ("http://prefill_1:8000", "prefill_1:8000"),
        ("http://[FE80::1]:8000", "[fe80::1]:8000"),
        ("http://[::1]", "[::1]:80"),
    ],
)
def test_the_id_is_host_and_port(fleet, url, engine_id):
    (change,) = fleet.add_static(url, "decode", 0.0)
    assert change.engine.id == engine_id
    assert change.engine.url.endswith(f"://{engine_id}")


@pytest.mark.parametrize(
    "url",
    [
        "", "host:8000", "ftp://host", "http://", "http://host:0", "http://host:99999", "http://host:x",
        "http://host/v1", "http://host?a", "http://u:p@host", "http://a..b", "http://[::1", "http://[x]:1",
        "http://a b", " http://host", "http://" + "a" * 64, None, 7, b"http://host",
    ],
)  # fmt: skip
def test_a_bad_url_is_refused_naming_field_value_and_what_is_right(fleet, url):
    with pytest.raises(BadRequest, match=r"url is .*; it must be http://HOST:PORT") as caught:
        fleet.register(**(GOOD | {"url": url}))
    assert caught.value.param == "url"
    assert fleet.engines() == ()


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("role", "both"),
        ("handoff", "lmcache"),
        ("ttl_s", 0),
        ("ttl_s", True),
        ("ttl_s", float("nan")),
        ("ttl_s", "10"),
        ("zmq_address", "host"),
        ("zmq_address", "tcp://host:1"),
        ("zmq_address", "a_b:1"),
        ("zmq_address", 7),
    ],
)
def test_a_bad_registration_is_refused_and_changes_nothing(fleet, field, bad):
    with pytest.raises(BadRequest, match=f"{field} is .*; it must be") as caught:
        fleet.register(**(GOOD | {field: bad}))
    assert caught.value.param == field
    assert fleet.engines() == ()


def test_an_announced_ipv6_address_needs_no_brackets(fleet):
    announce(fleet, "fe80::1:8000")
    assert fleet.get("[fe80::1]:8000").url == "http://[fe80::1]:8000"


@pytest.mark.parametrize("address", ["", "host", "http://host:1", "host:x", "host:0", ":1", "host:1/x"])
def test_a_bad_announced_address_is_refused(fleet, address):
    with pytest.raises(BadRequest, match="http_address is"):
        announce(fleet, address)
