"""Who may do what."""

import pytest

from ppd_proxy.core.types import Reason
from ppd_proxy.errors import BadRequest
from ppd_proxy.sections import Auth
from ppd_proxy.server.access import check_admin, check_client, is_local

OPEN = Auth()
LOCKED = Auth(api_key=("one", "two"), admin_key="admin", register_key="beat")
HOST, AWAY = "127.0.0.1", "10.0.0.9"


def bearer(key):
    return {b"authorization": b"Bearer " + key}


def refusal(check, *args, **kwargs):
    with pytest.raises(BadRequest) as caught:
        check(*args, **kwargs)
    assert caught.value.reason == Reason.UNAUTHORIZED
    return caught.value.status


def test_without_keys_every_client_is_served():
    check_client(OPEN, {})
    check_client(OPEN, bearer(b"whatever"))


@pytest.mark.parametrize("headers", [bearer(b"one"), bearer(b"two"), {b"x-api-key": b"two"}])
def test_one_of_the_keys_opens(headers):
    check_client(LOCKED, headers)


@pytest.mark.parametrize(
    "headers",
    [{}, bearer(b""), bearer(b"three"), bearer(b"onetwo"), bearer(b"admin"), bearer("é".encode()), bearer(b"\xff"),
     {b"authorization": b"one"}, {b"authorization": b"Basic one"}, {b"x-admin-key": b"one"}],
)  # fmt: skip
def test_anything_else_is_a_401(headers):
    assert refusal(check_client, LOCKED, headers) == 401


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_local(address):
    assert is_local(address, {})


@pytest.mark.parametrize("address", [None, "", "10.0.0.9", "::ffff:10.0.0.9", "unix", "localhost", "0.0.0.0", "::"])
def test_everything_else_is_not_local(address):
    assert not is_local(address, {})


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"x-real-ip"])
def test_a_reverse_proxy_on_this_host_does_not_make_its_clients_local(name):
    assert not is_local(HOST, {name: b"127.0.0.1"})
    assert refusal(check_admin, OPEN, HOST, {name: b"127.0.0.1"}) == 403


def test_without_an_admin_key_this_host_administers():
    check_admin(OPEN, HOST, {})
    assert refusal(check_admin, OPEN, AWAY, {}) == 403
    assert refusal(check_admin, OPEN, AWAY, bearer(b"")) == 403


def test_an_admin_key_is_wanted_from_everywhere():
    check_admin(LOCKED, AWAY, bearer(b"admin"))
    check_admin(LOCKED, AWAY, {b"x-admin-key": b"admin", **bearer(b"one")})
    assert refusal(check_admin, LOCKED, HOST, {}) == 401
    assert refusal(check_admin, LOCKED, HOST, bearer(b"one")) == 401


def test_the_register_key_lets_other_hosts_send_heartbeats_and_nothing_else():
    check_admin(LOCKED, AWAY, bearer(b"beat"), is_heartbeat=True)
    check_admin(Auth(register_key="beat"), AWAY, bearer(b"beat"), is_heartbeat=True)
    assert refusal(check_admin, LOCKED, AWAY, bearer(b"beat")) == 401
    assert refusal(check_admin, Auth(register_key="beat"), AWAY, bearer(b"beat")) == 403


def test_heartbeats_may_use_the_admin_key_and_need_one_of_both():
    check_admin(LOCKED, AWAY, bearer(b"admin"), is_heartbeat=True)
    assert refusal(check_admin, LOCKED, AWAY, bearer(b"other"), is_heartbeat=True) == 401
    assert refusal(check_admin, OPEN, AWAY, {}, is_heartbeat=True) == 403
    check_admin(OPEN, HOST, {}, is_heartbeat=True)
