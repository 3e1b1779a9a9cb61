"""Requests that were made on this host by its operator, and those that only look so."""

import pytest

from ppd_proxy.admission.same_host import check_same_host
from ppd_wire.errors import BadRequest

HERE, HOST = "127.0.0.1", (b"host", b"localhost:10001")


def refusal(*headers, address=HERE):
    with pytest.raises(BadRequest) as caught:
        check_same_host(address, list(headers))
    return caught.value


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_host_reaches_itself_from_its_loopback_addresses(address):
    check_same_host(address, [HOST])


@pytest.mark.parametrize(
    "address",
    [None, "", "10.0.0.9", "127.0.0.6", "127.3.2.1", "::ffff:127.0.0.6", "::ffff:10.0.0.9", "unix", "localhost",
     "0.0.0.0", "::"],
)  # fmt: skip
def test_every_other_address_is_elsewhere(address):
    error = refusal(HOST, address=address)
    assert error.status == 403
    assert "--admin-key" in error.message
    assert (address or "unknown") in error.message


@pytest.mark.parametrize(
    "name",
    [b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-server",
     b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip",
     b"x-envoy-external-address", b"x-original-forwarded-for", b"x-original-host"],
)  # fmt: skip
def test_a_reverse_proxy_on_this_host_does_not_make_its_clients_local(name):
    error = refusal((name, b"127.0.0.1"), HOST)
    assert error.status == 403
    assert f"{name.decode()}: '127.0.0.1'" in error.message
    assert refusal(HOST, (name, b"")).status == 403


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"localhost:10001", b"LocalHost:1", b"localhost.", b"localhost.:1", b"127.0.0.1", b"127.0.0.1:80",
     b"127.8.9.10:10001", b"127.0.0.1.", b"[::1]", b"[::1]:10001", b"[0:0:0:0:0:0:0:1]:9", b"[::ffff:127.0.0.1]:1"],
)  # fmt: skip
def test_loopback_has_many_names(host):
    check_same_host(HERE, [(b"host", host)])
    check_same_host(HERE, [(b"origin", b"http://" + host), (b"host", host)])


@pytest.mark.parametrize(
    "host",
    [b"evil:10001", b"evil.example", b"localhost.evil.example", b"localhost.evil:10001", b"evil.localhost",
     b"127.0.0.1.evil.example", b"127.0.0.1.nip.io:10001", b"10.0.0.9", b"0.0.0.0:10001", b"[::]", b"[::1", b"::1",
     b"[fe80::1]", b"[::1].evil:1", b"127.1", b"0x7f.0.0.1", b"2130706433", b"localhost:x", b"localhost:", b"a@b",
     b"localhost, evil", b"local\xefhost", b"127.0.0.01", b"[127.0.0.1]", b"", b":10001"],
)  # fmt: skip
def test_another_host_was_asked_for(host):
    error = refusal((b"host", host))
    assert error.status == 403
    assert error.message.count("host: ") == 1
    for hosts in ((host, b"localhost"), (b"localhost", host)):
        assert refusal(*[(b"host", each) for each in hosts]).status == 403


def test_a_request_that_names_no_host_is_refused():
    assert "host: ''" in refusal().message


@pytest.mark.parametrize(
    "origin",
    [b"http://evil", b"null", b"", b"http://localhost", b"http://localhost:3000", b"https://localhost:10001",
     b"http://127.0.0.1:10001", b"http://localhost:10001.evil", b"http://localhost:10001/", b"file://",
     b"chrome-extension://abcdef", b"http://evil, http://localhost:10001", b"localhost:10001"],
)  # fmt: skip
def test_pages_of_other_sites_are_refused(origin):
    error = refusal(HOST, (b"origin", origin))
    assert error.status == 403
    assert f"origin: {origin.decode()!r}" in error.message
    for origins in ((origin, b"http://localhost:10001"), (b"http://localhost:10001", origin)):
        assert refusal(HOST, *[(b"origin", each) for each in origins]).status == 403


def test_the_default_port_may_be_left_out():
    check_same_host(HERE, [(b"host", b"localhost:80"), (b"origin", b"http://localhost")])
    check_same_host(HERE, [(b"host", b"localhost"), (b"origin", b"http://localhost:80")])


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"", b"same-origin, cross-site", b"nonesuch"])
def test_what_a_browser_fetches_for_another_site_is_refused(site):
    assert "sec-fetch-site" in refusal(HOST, (b"sec-fetch-site", site)).message
    assert refusal(HOST, (b"sec-fetch-site", site), (b"sec-fetch-site", b"none")).status == 403
    for own in (b"same-origin", b"none"):
        check_same_host(HERE, [HOST, (b"sec-fetch-site", own)])


@pytest.mark.parametrize("size", [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")])
def test_a_body_is_json_and_says_so(size):
    for right in (b"application/json", b"Application/JSON", b"application/json; charset=utf-8", b"application/json ;x"):
        check_same_host(HERE, [HOST, size, (b"content-type", right)])
    for wrong in (
        b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=application/json", b"",
        b"text/plain; application/json", b"application/json, text/plain", b"application/jsonx", b"application/json5",
    ):  # fmt: skip
        error = refusal(HOST, size, (b"content-type", wrong))
        assert (error.status, wrong.decode() in error.message) == (415, True)
        assert refusal(HOST, size, (b"content-type", wrong), (b"content-type", b"application/json")).status == 415
    assert refusal(HOST, size).status == 415


def test_no_body_needs_no_type():
    check_same_host(HERE, [HOST, (b"content-length", b"0"), (b"content-type", b"text/plain")])
    check_same_host(HERE, [HOST, (b"content-length", b"0")])


def test_a_long_value_is_not_repeated_in_full():
    assert len(refusal((b"host", b"x" * 5000)).message) < 400
