"""What any web page that an operator opens could send to the admin endpoints: raw requests from loopback."""

import json

import pytest
from tests.support.cluster import running_proxy
from tests.support.raw import ask_raw

from ppd_proxy.config.sections import Auth

ENGINE = json.dumps({"url": "http://127.0.0.1:9", "role": "decode"}).encode()
JSON = b"content-type: application/json"
ADMIN = (
    (b"GET", b"/mode"), (b"POST", b"/mode/pd"), (b"GET", b"/conversations"), (b"POST", b"/conversations/clear"),
    (b"GET", b"/engines"), (b"POST", b"/engines"), (b"DELETE", b"/engines/x:1"), (b"POST", b"/engines/x:1/drain"),
    (b"GET", b"/accuracy"), (b"GET", b"/accuracy/noise"), (b"GET", b"/accuracy/samples"),
    (b"GET", b"/accuracy/samples/x"), (b"POST", b"/accuracy/rate/1"), (b"POST", b"/accuracy/calibrate"),
    (b"POST", b"/accuracy/reset"), (b"POST", b"/accuracy/trust"),
)  # fmt: skip
FOREIGN = (
    (b"host: evil:10001",), (b"host: %b", b"origin: http://evil"), (b"host: %b", b"origin: null"),
    (b"host: %b", b"sec-fetch-site: cross-site"), (b"host: %b", b"x-forwarded-for: 1.2.3.4"),
    (b"host: %b", b"origin: http://evil", b"origin: http://%b"), (b"host: %b", b"forwarded: for=1.2.3.4"),
    (b"host: %b", b"host: evil"), (b"host: evil", b"host: %b"), (b"host: %b", b"via: 1.1 gate"),
)  # fmt: skip


def lines_of(cluster, headers):
    authority = cluster.url.removeprefix("http://").encode()
    return tuple(line.replace(b"%b", authority) for line in (*headers, JSON))


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: b" ".join(headers).decode())
async def test_no_page_reads_or_orders_anything(headers):
    async with running_proxy() as cluster:
        for method, path in ADMIN:
            body = ENGINE if path == b"/engines" and method == b"POST" else None
            reply = await ask_raw(cluster.url, method, path, body, headers=lines_of(cluster, headers))
            assert reply.status in (400, 403), path  # 400: a second Host may be refused as no HTTP
        assert cluster.runtime.control.mode == "ppd"
        assert cluster.runtime.fleet.engines() == ()


async def test_a_body_that_pages_may_send_without_asking_is_refused():
    async with running_proxy() as cluster:
        for wrong in (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x"):
            headers = (*lines_of(cluster, (b"host: %b",))[:1], b"content-type: " + wrong)
            reply = await ask_raw(cluster.url, b"POST", b"/engines", ENGINE, headers=headers)
            assert (reply.status, "application/json" in reply.error["message"]) == (415, True)
        untyped = lines_of(cluster, (b"host: %b",))[:1]
        assert (await ask_raw(cluster.url, b"POST", b"/engines", ENGINE, headers=untyped)).status == 415
        assert cluster.runtime.fleet.engines() == ()
        assert (await ask_raw(cluster.url, b"POST", b"/mode/pd", headers=untyped)).status == 200


async def test_the_operators_own_tools_and_pages_are_served():
    async with running_proxy() as cluster:
        for headers in (
            (b"host: %b",), (b"host: localhost:10001",), (b"host: LOCALHOST.",), (b"host: [::1]:10001",),
            (b"host: %b", b"origin: http://%b", b"sec-fetch-site: same-origin"), (b"host: %b", b"sec-fetch-site: none"),
        ):  # fmt: skip
            reply = await ask_raw(cluster.url, b"POST", b"/engines", ENGINE, headers=lines_of(cluster, headers))
            assert reply.status == 200, headers


async def test_with_an_admin_key_the_key_decides():
    async with running_proxy(auth=Auth(admin_key="root")) as cluster:
        for headers in FOREIGN[:4]:
            lines = lines_of(cluster, headers)
            assert (await ask_raw(cluster.url, b"GET", b"/mode", headers=lines)).status == 401
            assert (await ask_raw(cluster.url, b"GET", b"/mode", headers=(*lines, b"x-admin-key: root"))).status == 200


@pytest.mark.parametrize("path", [b"/mode", b"/engines", b"/v1/models", b"/metrics", b"/nowhere"])
async def test_two_authorizations_that_differ_are_400_on_every_endpoint(path):
    async with running_proxy(auth=Auth(admin_key="root", api_key=("client",))) as cluster:
        key = b"client" if path == b"/v1/models" else b"root"
        for keys in ((b"other", key), (key, b"other")):
            lines = (*lines_of(cluster, (b"host: %b",)), *(b"authorization: Bearer " + each for each in keys))
            assert (await ask_raw(cluster.url, b"GET", path, headers=lines)).status == 400
        lines = (*lines_of(cluster, (b"host: %b",)), *[b"authorization: Bearer " + key] * 2)
        assert (await ask_raw(cluster.url, b"GET", path, headers=lines)).status != 400


async def test_two_different_admin_keys_are_400():
    async with running_proxy(auth=Auth(admin_key="root")) as cluster:
        lines = (*lines_of(cluster, (b"host: %b",)), b"x-admin-key: nope", b"x-admin-key: root")
        assert (await ask_raw(cluster.url, b"GET", b"/mode", headers=lines)).status == 400
