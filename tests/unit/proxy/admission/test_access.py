"""Who may do what."""

import pytest

from ppd_proxy.admission.access import check_admin, check_client
from ppd_proxy.config.sections import Auth
from ppd_wire.errors import BadRequest, Refusal

OPEN = Auth()
LOCKED = Auth(api_key=("one", "two"), admin_key="admin", register_key="beat")
HOST, AWAY = "127.0.0.1", "10.0.0.9"
HERE = [(b"host", b"localhost:10001")]


def bearer(key):
    return {b"authorization": b"Bearer " + key}


def refusal(check, *args, **kwargs):
    with pytest.raises(BadRequest) as caught:
        check(*args, **kwargs)
    assert caught.value.reason == Refusal.UNAUTHORIZED
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


def asked(*headers):
    """The headers of a request made on this host, with more."""
    return [*HERE, *headers]


def key(value):
    return (b"authorization", b"Bearer " + value)


def test_without_an_admin_key_this_host_administers():
    check_admin(OPEN, HOST, HERE)
    assert refusal(check_admin, OPEN, AWAY, HERE) == 403
    assert refusal(check_admin, OPEN, AWAY, asked(key(b""))) == 403


def test_an_admin_key_is_wanted_from_everywhere():
    check_admin(LOCKED, AWAY, [key(b"admin")])
    check_admin(LOCKED, AWAY, [(b"x-admin-key", b"admin"), key(b"one")])
    assert refusal(check_admin, LOCKED, HOST, HERE) == 401
    assert refusal(check_admin, LOCKED, HOST, asked(key(b"one"))) == 401


def test_with_an_admin_key_nothing_else_is_asked_for():
    check_admin(LOCKED, AWAY, [(b"host", b"proxy.example"), (b"origin", b"https://ops.example"), key(b"admin")])


def test_two_admin_keys_are_refused_whichever_comes_last():
    for values in ((b"admin", b"other"), (b"other", b"admin")):
        with pytest.raises(BadRequest, match="x-admin-key") as caught:
            check_admin(LOCKED, AWAY, [(b"x-admin-key", value) for value in values])
        assert caught.value.status == 400
    check_admin(LOCKED, AWAY, [(b"x-admin-key", b"admin")] * 2)


def test_the_register_key_lets_other_hosts_send_heartbeats_and_nothing_else():
    check_admin(LOCKED, AWAY, [key(b"beat")], is_heartbeat=True)
    check_admin(Auth(register_key="beat"), AWAY, [key(b"beat")], is_heartbeat=True)
    assert refusal(check_admin, LOCKED, AWAY, [key(b"beat")]) == 401
    assert refusal(check_admin, Auth(register_key="beat"), AWAY, [key(b"beat")]) == 403


def test_heartbeats_may_use_the_admin_key_and_need_one_of_both():
    check_admin(LOCKED, AWAY, [key(b"admin")], is_heartbeat=True)
    assert refusal(check_admin, LOCKED, AWAY, [key(b"other")], is_heartbeat=True) == 401
    assert refusal(check_admin, OPEN, AWAY, HERE, is_heartbeat=True) == 403
    check_admin(OPEN, HOST, HERE, is_heartbeat=True)
