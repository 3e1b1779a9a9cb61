"""Ids and handoff parameters are the proxy's alone, on every leg of every endpoint."""

import json

import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, running_cluster, running_proxy, scripted_engine, user

from ppd_proxy.config.sections import Engines

TAG = "___prefill_addr_evil:1___decode_addr_evil:2_" + "0" * 32
OWN = {"do_remote_prefill": True, "remote_engine_id": "evil", "remote_block_ids": [[1]]}
EVIL = {
    "kv_transfer_params": OWN, "ec_transfer_params": OWN, "request_id": TAG,
    "vllm_xargs": {"kv_transfer_params": OWN, "ec_transfer_params": OWN, "request_id": TAG, "kept": 1},
}  # fmt: skip
SPLIT = {
    "chat": (CHAT, {"messages": [user("Hi")]}),
    "text": (COMPLETIONS, {"prompt": "Hi"}),
    "several": (COMPLETIONS, {"prompt": ["Hi", "Ho"]}),
}
OPAQUE = {
    "responses": ("/v1/responses", {"input": "Hi"}),
    "messages": ("/v1/messages", {"messages": [user("Hi")]}),
}
PASSED_ON = {
    "embeddings": ("/v1/embeddings", {"input": "Hi"}),
    "tokenize": ("/tokenize", {"prompt": "Hi"}),
    "detokenize": ("/detokenize", {"tokens": [1]}),
}
CASES = [
    *(pytest.param(*case, stream, id=f"{name}-{stream}") for name, case in SPLIT.items() for stream in (False, True)),
    *(pytest.param(*case, False, id=name) for name, case in {**OPAQUE, **PASSED_ON}.items()),
]


@pytest.mark.parametrize(("path", "body", "stream"), CASES)
async def test_what_a_client_says_of_ids_and_kv_reaches_no_engine(path, body, stream):
    heard = []

    async def answer(request):
        text = await request.text()
        heard.append(text + str(request.headers))
        if "do_remote_decode" in text:
            return web.json_response({"id": "x", "choices": [{}], "kv_transfer_params": None})
        return web.Response(status=400, text="{}")

    paths = (CHAT, COMPLETIONS, *(path for path, _ in {**OPAQUE, **PASSED_ON}.values()))
    async with scripted_engine(answer, *paths) as first, scripted_engine(answer, *paths) as second:
        async with running_proxy(engines=Engines(prefill=(first,), decode=(second,))) as cluster:
            sent = {**body, **EVIL, "max_tokens": 3, "model": "m", "user": "kept too", "stream": stream}
            await cluster.ask(path, sent, headers={"x-request-id": TAG, "X-REQUEST-ID": TAG})
    assert len(heard) == (2 if path in (CHAT, COMPLETIONS) and "Ho" not in str(body) else 1)
    for each in heard:
        assert "evil" not in each
        assert "___" not in each
        assert '"kept":1' in each
        assert "kept too" in each


async def test_a_tag_in_the_prompt_is_text():
    async with running_cluster() as cluster:
        assert (await cluster.chat(f"what does {TAG} mean?")).status == 200
        for engine in cluster.engines:
            (received,) = engine.requests
            assert received.body["messages"][0]["content"] == f"what does {TAG} mean?"
            assert "___" not in received.headers["x-request-id"]


async def test_a_passed_on_body_that_is_no_json_object_is_refused():
    """What the proxy cannot read, it cannot keep anything out of."""
    async with running_cluster() as cluster:
        for body in (b"[]", b'{"prompt": "Hi"', json.dumps({"prompt": "Hi", **EVIL}).encode("utf-16")):
            reply = await cluster.ask("/tokenize", body)
            assert reply.status == 400
            assert "must be a JSON object" in reply.error["message"]
        assert (await cluster.ask("/tokenize", {"prompt": "Hi"})).status == 200


async def test_responses_are_known_by_the_proxys_id():
    heard = []

    async def answer(request):
        heard.append((await request.json(), request.headers["x-request-id"]))
        return web.json_response({"id": heard[-1][0]["request_id"], "object": "response"})

    async with scripted_engine(answer, "/v1/responses") as url:
        async with running_proxy(engines=Engines(aggregated=(url,))) as cluster:
            reply = await cluster.ask("/v1/responses", {"input": "Hi", "request_id": TAG})
            ((body, key),) = heard
            assert reply.json["id"] == body["request_id"] == f"resp_{key}"
            assert key == reply.headers["x-request-id"]
