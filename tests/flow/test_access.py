"""Who may do what: client keys, engine keys, the admin rule, the key for heartbeats."""

import pytest
from tests.support.cluster import CHAT, running_cluster, running_proxy, user

from ppd_proxy.config.sections import Auth
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine

ELSEWHERE = {"x-forwarded-for": "203.0.113.7"}
CLIENT_PATHS = (
    ("POST", CHAT), ("POST", "/v1/completions"), ("POST", "/v1/responses"), ("POST", "/v1/messages"),
    ("GET", "/v1/models"), ("POST", "/v1/embeddings"), ("POST", "/tokenize"), ("POST", "/detokenize"),
)  # fmt: skip
ADMIN_PATHS = (
    ("GET", "/mode"), ("POST", "/mode/pd"), ("GET", "/conversations"), ("POST", "/conversations/clear"),
    ("GET", "/engines"), ("POST", "/engines"), ("DELETE", "/engines/x:1"), ("POST", "/engines/x:1/drain"),
)  # fmt: skip


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def test_clients_need_one_of_the_keys():
    body = {"messages": [user("Hi")], "prompt": "Hi", "input": "Hi", "tokens": [1500], "max_tokens": 2}
    async with running_cluster(auth=Auth(api_key=("alpha", "beta"))) as cluster:
        for method, path in CLIENT_PATHS:
            sent = None if method == "GET" else body
            for headers in (
                {},
                bearer("gamma"),
                bearer(""),
                {"authorization": "alpha"},
                {"authorization": "Basic alpha"},
            ):
                reply = await cluster.ask(path, sent, headers=headers)
                assert (reply.status, reply.error["type"]) == (401, "authentication_error"), (path, headers)
                assert reply.headers["www-authenticate"] == "Bearer"
                assert "alpha" not in reply.body.decode()
            for headers in (bearer("alpha"), bearer("beta"), {"x-api-key": "beta"}):
                assert (await cluster.ask(path, sent, headers=headers)).status == 200, (path, headers)
        for path in ("/health", "/ready", "/metrics"):
            assert (await cluster.ask(path)).status == 200


async def test_the_engine_key_replaces_the_clients_on_both_legs():
    auth = Auth(api_key=("client",), engine_api_key="inner")
    async with running_cluster(engine={"api_key": "inner"}, auth=auth) as cluster:
        for headers in (bearer("client"), {"x-api-key": "client"}):
            assert (await cluster.chat("Hi", headers=headers)).status == 200
        assert (await cluster.ask("/v1/models", headers=bearer("client"))).status == 200
        assert (await cluster.ask("/v1/embeddings", {"input": "Hi"}, headers={"x-api-key": "client"})).status == 200
        for engine in cluster.engines:
            for received in engine.requests:
                assert received.headers["authorization"] == "Bearer inner"
                assert "client" not in str(received.headers)


async def test_without_an_engine_key_the_clients_header_travels_on():
    async with running_cluster(engine={"api_key": "inner"}) as cluster:
        assert (await cluster.chat("Hi", headers=bearer("inner"))).status == 200
        legs = [received for engine in cluster.engines for received in engine.requests]
        assert [leg.headers["authorization"] for leg in legs] == ["Bearer inner"] * 2
        assert (await cluster.ask("/v1/models", headers=bearer("inner"))).status == 200
        refused = await cluster.chat("Hi", headers=bearer("other"))
        assert (refused.status, refused.error["message"]) == (401, "Unauthorized")


async def test_nobodys_key_is_never_invented():
    async with running_cluster() as cluster:
        await cluster.chat("Hi")
        await cluster.ask("/v1/embeddings", {"input": "Hi"})
        for engine in cluster.engines:
            assert all("authorization" not in received.headers for received in engine.requests)


async def test_admin_endpoints_answer_this_host_only():
    async with running_cluster() as cluster:
        for method, path in ADMIN_PATHS:
            for headers in (ELSEWHERE, {"forwarded": "for=203.0.113.7"}, {"x-real-ip": "127.0.0.1"}):
                reply = await cluster.ask(path, method=method, headers=headers)
                assert (reply.status, reply.headers["content-type"]) == (403, "application/json"), path
                assert "--admin-key" in reply.error["message"]
        assert (await cluster.ask("/mode")).json == {"mode": "ppd"}
        assert cluster.runtime.control.mode == "ppd"


async def test_an_admin_key_is_wanted_from_everywhere():
    async with running_cluster(auth=Auth(admin_key="root", api_key=("client",))) as cluster:
        for method, path in ADMIN_PATHS:
            for headers in ({}, bearer("client"), {"x-admin-key": "nope"}):
                assert (await cluster.ask(path, method=method, headers=headers)).status == 401, path
        for headers in (bearer("root"), {"x-admin-key": "root"}, {**ELSEWHERE, "x-admin-key": "root"}):
            assert (await cluster.ask("/mode", headers=headers)).status == 200
        assert (await cluster.chat("Hi", headers=bearer("root"))).status == 401
        reply = await cluster.chat("Hi", headers={**bearer("client"), "x-admin-key": "root"})
        assert reply.status == 200
        for engine in cluster.engines:
            assert "root" not in str(engine.requests[-1].headers)


@pytest.mark.parametrize("admin_key", [None, "root"])
async def test_the_register_key_sends_heartbeats_and_nothing_else(admin_key):
    auth = Auth(register_key="beat", admin_key=admin_key)
    async with running_proxy(auth=auth) as cluster, running_engine(EngineConfig(role="decode")) as engine:
        headers = {**ELSEWHERE, **bearer("beat")}
        reply = await cluster.ask("/engines", {"url": engine.url, "role": "decode", "ttl_s": 60}, headers=headers)
        assert (reply.status, reply.json["state"]) == (200, "up")
        for method, path in ADMIN_PATHS:
            if (method, path) != ("POST", "/engines"):
                refused = await cluster.ask(path, method=method, headers=headers)
                assert refused.status == (401 if admin_key else 403), path
        wrong = await cluster.ask(
            "/engines", {"url": engine.url, "role": "decode"}, headers={**ELSEWHERE, **bearer("x")}
        )
        assert wrong.status == (401 if admin_key else 403)
