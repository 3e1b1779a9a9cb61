"""KV handoffs between simulated engines: NIXL pulls, P2pNccl tags, and what goes wrong when the rules are broken."""

import asyncio
import json

import aiohttp
import msgpack
import pytest
import zmq
import zmq.asyncio

from ppd_connector.wire import request_tag
from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault
from ppd_sim.timing import TimingConfig

CHAT = "/v1/chat/completions"
LIMIT_S = 30
ASK = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None}
QUESTION = "Tell me a long story about a river, a mill and the people who lived beside them."


@pytest.fixture
async def pair():
    async with (
        running_engine(EngineConfig(role="prefill")) as prefill,
        running_engine(EngineConfig(role="decode")) as decode,
    ):
        yield prefill, decode


def chat(text=QUESTION, **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 20, "temperature": 0, **fields}


async def post(http, engine, body, status=200, path=CHAT, **headers):
    async with http.post(engine.url + path, json=body, headers=headers) as response:
        answer = await response.json()
        assert response.status == status, answer
        return answer


async def state(http, engine):
    async with http.get(engine.url + "/sim/state") as response:
        return await response.json()


async def prefilled(http, prefill, body):
    answer = await post(http, prefill, {**body, "max_tokens": 1, "kv_transfer_params": ASK})
    return answer["kv_transfer_params"]


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


async def test_prefill_engine_answers_with_every_field_of_the_protocol(http, pair):
    params = await prefilled(http, pair[0], chat())
    assert set(params) >= {
        "do_remote_prefill", "do_remote_decode", "remote_block_ids", "remote_engine_id", "remote_request_id",
        "remote_host", "remote_port", "tp_size", "dcp_size", "pp_size", "remote_num_tokens",
        "remote_blocks_expiry_time", "transfer_mode",
    }  # fmt: skip
    assert (params["do_remote_prefill"], params["do_remote_decode"]) == (True, False)
    assert (await state(http, pair[0]))["held"] == 1


async def test_a_split_pair_answers_as_one_engine_and_the_next_turn_is_direct(http, pair):
    prefill, decode = pair
    async with running_engine(EngineConfig(role="aggregated")) as whole:
        expected = await post(http, whole, chat())
    body = chat(kv_transfer_params=await prefilled(http, prefill, chat()))
    answer = await post(http, decode, body)
    assert text_of(answer) == text_of(expected)
    tokens = answer["usage"]["prompt_tokens"]
    assert (decode.counts.transfers, decode.counts.transferred_tokens) == (1, tokens)
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert len(prefill.held) == 0

    history = [*chat()["messages"], {"role": "assistant", "content": text_of(answer)}, {"role": "user", "content": "?"}]
    turn = await post(http, decode, {**chat(), "messages": history})
    held = tokens + answer["usage"]["completion_tokens"] - 1
    assert turn["usage"]["prompt_tokens_details"]["cached_tokens"] == held // 16 * 16
    assert decode.counts.transfers == 1


async def test_cached_tokens_of_a_pd_leg_are_the_prefill_engines_own_hits(http, pair):
    prefill, decode = pair
    await prefilled(http, prefill, chat())
    params = await prefilled(http, prefill, chat())
    answer = await post(http, decode, chat(kv_transfer_params=params))
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == params["remote_prefill_cached_tokens"] > 0


@pytest.mark.parametrize("change", [{"remote_request_id": "x"}, {"remote_engine_id": "x"}, {"remote_block_ids": [[9]]}])
async def test_blocks_that_are_not_held_fail_the_load(http, pair, change):
    prefill, decode = pair
    params = {**await prefilled(http, prefill, chat()), **change}
    error = (await post(http, decode, chat(kv_transfer_params=params), 500))["error"]
    assert error["type"] == "InternalServerError"
    assert prefill.counts.stale_pulls == 1
    assert decode.counts.failed_transfers == 1


async def test_blocks_can_be_pulled_once_and_a_stream_fails_after_its_role_chunk(http, pair):
    prefill, decode = pair
    params = await prefilled(http, prefill, chat())
    await post(http, decode, chat(kv_transfer_params=params))
    async with running_engine(EngineConfig(role="decode")) as other:
        body = chat(kv_transfer_params=params, stream=True)
        async with http.post(other.url + CHAT, json=body) as response:
            assert response.status == 200
            role, error, done, end = (await response.text()).split("\n\n")
    assert json.loads(role.removeprefix("data: "))["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == 500
    assert (done, end) == ("data: [DONE]", "")


async def test_a_prefill_engine_that_is_gone_fails_the_load(http):
    async with running_engine(EngineConfig(role="decode")) as decode:
        async with running_engine(EngineConfig(role="prefill")) as prefill:
            params = await prefilled(http, prefill, chat())
        await post(http, decode, chat(kv_transfer_params=params), 500)


async def test_a_lease_ends(http, until):
    async with (
        running_engine(EngineConfig(role="prefill", kv_lease_s=0.01)) as prefill,
        running_engine(EngineConfig(role="decode")) as decode,
    ):
        params = await prefilled(http, prefill, chat())
        await until(lambda: prefill.counts.expired_leases == 1)
        assert len(prefill.held) == 0
        await post(http, decode, chat(kv_transfer_params=params), 500)


async def test_a_waiting_request_keeps_the_lease_alive_and_gives_it_back_when_it_leaves(http, spawn, until):
    slow = TimingConfig(decode_ms_per_token=60_000, slots=1)
    async with (
        running_engine(EngineConfig(role="prefill", kv_lease_s=60)) as prefill,
        running_engine(EngineConfig(role="decode", timing=slow, kv_lease_s=0.06)) as decode,
    ):
        params = await prefilled(http, prefill, chat())
        blocker = spawn(post(http, decode, chat("Hi")))
        await until(lambda: decode.core.slots.running == 1)
        waiting = spawn(post(http, decode, chat(kv_transfer_params=params)))
        await until(lambda: prefill.counts.requests["/sim/kv/renew"] > 1)
        assert len(prefill.held) == 1
        waiting.cancel()
        await until(lambda: decode.counts.released == 1)
        assert len(prefill.held) == 0
        blocker.cancel()
        await until(lambda: decode.counts.aborts == 2)


async def test_a_prompt_that_is_whole_in_the_local_cache_only_frees_the_prefill_engine(http, pair):
    prefill, decode = pair
    body = {"prompt": list(range(97, 97 + 16)) * 2, "max_tokens": 2, "temperature": 0}
    await post(http, decode, body, path="/v1/completions")
    answer = await post(http, prefill, {**body, "max_tokens": 1, "kv_transfer_params": ASK}, path="/v1/completions")
    again = {**body, "kv_transfer_params": answer["kv_transfer_params"]}
    await post(http, decode, again, path="/v1/completions")
    assert (decode.counts.full_local_hits, decode.counts.transfers, len(prefill.held)) == (1, 0, 0)


async def test_legs_with_different_prompts_are_counted_and_damage_the_answer(http, pair):
    prefill, decode = pair
    good = await post(http, decode, chat())
    async with running_engine(EngineConfig(role="decode")) as other:
        params = await prefilled(http, prefill, chat("Something else altogether, of about the same length."))
        bad = await post(http, other, chat(kv_transfer_params=params))
        assert text_of(bad) != text_of(good)
        assert other.counts.mismatched_handoffs == 1
        assert text_of(await post(http, other, chat())) != text_of(good)


async def test_several_sequences_in_one_handoff_are_refused_and_counted(http, pair):
    prefill, decode = pair
    params = await prefilled(http, prefill, chat())
    await post(http, decode, chat(n=2, temperature=1, kv_transfer_params=params), 500)
    body = {"prompt": ["a", "b"], "max_tokens": 1, "kv_transfer_params": ASK}
    await post(http, prefill, body, 500, "/v1/completions")
    assert (prefill.counts.multi_sequence_handoffs, decode.counts.multi_sequence_handoffs) == (1, 1)


@pytest.mark.parametrize("config", [{"role": "aggregated"}, {"role": "decode", "handoff": "none"}])
async def test_an_engine_without_a_connector_ignores_parameters(http, config):
    async with running_engine(EngineConfig(**config)) as engine:
        answer = await post(http, engine, chat(kv_transfer_params=ASK))
        assert answer["kv_transfer_params"] is None
        assert len(engine.held) == 0


async def test_transfer_metrics_count_tokens_and_bytes(http):
    timing = TimingConfig(kv_bytes_per_token=1000, transfer_fixed_ms=1)
    async with (
        running_engine(EngineConfig(role="prefill")) as prefill,
        running_engine(EngineConfig(role="decode", timing=timing)) as decode,
    ):
        answer = await post(http, decode, chat(kv_transfer_params=await prefilled(http, prefill, chat())))
        async with http.get(decode.url + "/metrics") as response:
            text = await response.text()
    tokens = answer["usage"]["prompt_tokens"]
    label = 'engine="0",model_name="sim"'
    assert f"vllm:nixl_bytes_transferred_sum{{{label}}} {tokens * 1000.0}" in text
    assert f'vllm:prompt_tokens_by_source_total{{{label},source="external_kv_transfer"}} {float(tokens)}' in text
    assert f"vllm:nixl_xfer_time_seconds_sum{{{label}}} 0.001" in text


def p2p(role, **fields):
    return EngineConfig(role=role, handoff="p2p_nccl", kv_port=0, **fields)


async def test_a_tag_moves_kv_between_p2p_engines(http):
    async with running_engine(p2p("prefill")) as prefill, running_engine(p2p("decode")) as decode:
        headers = {"X-Request-Id": request_tag(prefill.zmq_address, decode.zmq_address, "0" * 32)}
        first = await post(http, prefill, chat(max_tokens=1), **headers)
        assert first["kv_transfer_params"] is None
        assert len(prefill.held) == 1
        answer = await post(http, decode, chat(), **headers)
        assert answer["id"] == "chatcmpl-" + headers["X-Request-Id"]
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == answer["usage"]["prompt_tokens"] - 1
        assert (decode.counts.transfers, len(prefill.held)) == (1, 0)


async def test_a_p2p_consumer_waits_until_its_producer_is_done(http, spawn, until):
    async with running_engine(p2p("prefill")) as prefill, running_engine(p2p("decode")) as decode:
        headers = {"X-Request-Id": request_tag(prefill.zmq_address, decode.zmq_address, "1" * 32)}
        waiting = spawn(post(http, decode, chat(), **headers))
        await until(lambda: decode.counts.failed_transfers > 0)
        assert not waiting.done()
        await post(http, prefill, chat(max_tokens=1), **headers)
        async with asyncio.timeout(LIMIT_S):
            assert text_of(await waiting)


async def test_a_stock_p2p_consumer_dies_of_an_untagged_request(http):
    async with running_engine(p2p("decode")) as decode:
        with pytest.raises(aiohttp.ClientError):
            await post(http, decode, chat())
        assert decode.has_died
        assert decode.counts.untagged_requests == 1
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(decode.url + "/health")


async def test_a_patched_p2p_consumer_answers_an_untagged_request(http):
    async with running_engine(p2p("decode", is_ppd=True)) as decode:
        assert text_of(await post(http, decode, chat()))


KV = TimingConfig(kv_bytes_per_token=1000, transfer_fixed_ms=1)
PROMPT = {"prompt": list(range(97, 97 + 40)), "max_tokens": 2, "temperature": 0}


@pytest.fixture
async def ours():
    """A pair with our connector."""
    async with (
        running_engine(p2p("prefill", is_ppd=True, timing=KV)) as prefill,
        running_engine(p2p("decode", is_ppd=True, timing=KV)) as decode,
    ):
        yield prefill, decode


async def handed_over(http, prefill, decode, body, *, key, held_tokens=0):
    tag = request_tag(prefill.zmq_address, decode.zmq_address, key * 32, held_tokens)
    headers = {"X-Request-Id": tag}
    await post(http, prefill, {**body, "max_tokens": 1}, path="/v1/completions", **headers)
    return await post(http, decode, body, path="/v1/completions", **headers)


async def metrics_of(http, engine):
    async with http.get(engine.url + "/metrics") as response:
        return await response.text()


async def test_blocks_that_a_decode_engine_of_ours_holds_are_not_moved_again(http, ours):
    prefill, decode = ours
    first = await handed_over(http, prefill, decode, PROMPT, key="0")
    assert first["kv_transfer_params"] == {
        "ppd_transfer": {"bytes": 40_000, "seconds": 0.001, "blocks": 3, "skipped_blocks": 0}
    }
    second = await handed_over(http, prefill, decode, PROMPT, key="1", held_tokens=33)
    assert second["kv_transfer_params"] == {
        "ppd_transfer": {"bytes": 8_000, "seconds": 0.001, "blocks": 1, "skipped_blocks": 2}
    }
    assert second["usage"] == first["usage"]
    for engine, direction, peer in ((decode, "recv", prefill), (prefill, "send", decode)):
        told = await metrics_of(http, engine)
        label = f'direction="{direction}",engine="0",model_name="sim",peer="{peer.zmq_address}"'
        assert f"vllm:ppd_kv_transfer_bytes_total{{{label}}} 48000.0" in told
        assert f"vllm:ppd_kv_transfer_seconds_total{{{label}}} 0.002" in told
        assert f"vllm:ppd_kv_transfers_total{{{label}}} 2.0" in told
        assert f'vllm:ppd_kv_blocks_total{{{label},what="moved"}} 4.0' in told
        assert f'vllm:ppd_kv_blocks_total{{{label},what="skipped"}} 2.0' in told
        assert "vllm:ppd_kv_failures_total{" not in told


async def test_a_decode_engine_of_ours_that_lost_what_was_left_out_computes_the_rest(http, ours):
    prefill, decode = ours
    first = await handed_over(http, prefill, decode, PROMPT, key="0")
    decode.cache.clear()
    again = await handed_over(http, prefill, decode, PROMPT, key="1", held_tokens=33)
    assert again["choices"] == first["choices"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert len(prefill.held) == 0
    told = await metrics_of(http, decode)
    assert f'peer="{prefill.zmq_address}",reason="prefix_not_held"}} 1.0' in told


async def test_the_block_that_the_next_token_needs_is_always_moved(http, ours):
    prefill, decode = ours
    answer = await handed_over(http, prefill, decode, {**PROMPT, "prompt": [97] * 32}, key="0", held_tokens=1000)
    assert answer["kv_transfer_params"]["ppd_transfer"]["skipped_blocks"] == 1


async def test_stock_p2p_engines_tell_nothing_of_their_transfers(http):
    async with running_engine(p2p("prefill")) as prefill, running_engine(p2p("decode")) as decode:
        assert (await handed_over(http, prefill, decode, PROMPT, key="0"))["kv_transfer_params"] is None
        assert "vllm:ppd_kv_transfer_bytes_total{" not in await metrics_of(http, decode)


@pytest.mark.parametrize(("role", "is_ppd", "kind"), [("prefill", False, "P"), ("decode", True, "D")])
async def test_engines_announce_themselves_as_p2pnccl_does(role, is_ppd, kind):
    context = zmq.asyncio.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    try:
        config = p2p(role, is_ppd=is_ppd, announce=f"127.0.0.1:{port}", announce_interval_s=0.01)
        async with running_engine(config) as engine, asyncio.timeout(LIMIT_S):
            for _ in range(2):
                identity, payload = await router.recv_multipart()
                expected = {"type": kind, "http_address": engine.http_address, "zmq_address": engine.zmq_address}
                assert identity.decode() == engine.zmq_address
                assert msgpack.unpackb(payload) == expected | ({"ppd": True} if is_ppd else {})
    finally:
        router.close(0)
        context.term()


async def test_a_killed_engine_leaves_its_clients_with_a_broken_connection(http, pair):
    pair[1].faults.add(Fault(kind="kill", nth=2))
    await post(http, pair[1], chat())
    with pytest.raises(aiohttp.ClientError):
        await post(http, pair[1], chat())
    assert pair[1].has_died
