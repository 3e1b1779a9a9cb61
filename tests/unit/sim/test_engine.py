"""Simulated engines over loopback: vLLM's shapes, the prefix cache over turns, aborts, errors."""

import asyncio
import json

import pytest

from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.model.model import ModelConfig
from ppd_sim.timing import TimingConfig

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
LIMIT_S = 30


def chat(*contents, **fields):
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    return {"messages": messages, "max_tokens": 20, "temperature": 0, **fields}


def prompt(text="Once upon a time", **fields):
    return {"prompt": text, "max_tokens": 8, "temperature": 0, **fields}


async def post(http, engine, path, body, status=200, **headers):
    async with http.post(engine.url + path, json=body, headers=headers) as response:
        answer = await response.json()
        assert response.status == status, answer
        return answer


async def stream(http, engine, path, body, **headers):
    async with http.post(engine.url + path, json={**body, "stream": True}, headers=headers) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        events = (await response.read()).decode().split("\n\n")
    assert events.pop() == ""
    assert events[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


def text_of(answer):
    choice = answer["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"]


async def test_chat_answer_has_the_shape_of_vllm(http, engine):
    answer = await post(http, engine, CHAT, chat("Tell me a story"), **{"X-Request-Id": "abc"})
    assert answer["id"] == "chatcmpl-abc"
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "sim"
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert len(message["content"].split()) > 5
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert answer["kv_transfer_params"] is None
    assert [(received.path, received.headers["x-request-id"]) for received in engine.requests] == [(CHAT, "abc")]


async def test_chat_stream_has_the_shape_of_vllm(http, engine):
    body = chat("Tell me a story", stream_options={"include_usage": True}, max_tokens=5)
    first, *content, last, usage = await stream(http, engine, CHAT, body, **{"X-Request-Id": "abc"})
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert {chunk["id"] for chunk in content} == {"chatcmpl-abc"}
    assert {chunk["object"] for chunk in content} == {"chat.completion.chunk"}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in content)
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["stop_reason"] is None
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    whole = await post(http, engine, CHAT, chat("Tell me a story", max_tokens=5))
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in [*content, last]) == text_of(whole)


async def test_completion_stream_gives_the_text_of_the_json_answer(http, engine):
    whole = await post(http, engine, COMPLETIONS, prompt(), **{"X-Request-Id": "r"})
    chunks = await stream(http, engine, COMPLETIONS, prompt(), **{"X-Request-Id": "r"})
    assert whole["id"] == chunks[0]["id"] == "cmpl-r"
    assert whole["object"] == chunks[0]["object"] == "text_completion"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text_of(whole)
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"


async def test_plain_chunks_and_detailed_chunks_have_the_same_fields(http, engine):
    for path, body in ((CHAT, chat("Hi")), (COMPLETIONS, prompt())):
        plain = (await stream(http, engine, path, body))[1]
        detailed = (await stream(http, engine, path, {**body, "return_token_ids": True}))[1]
        assert list(plain) == list(detailed)
        assert list(plain["choices"][0]) == list(detailed["choices"][0])


async def test_json_answers_have_every_field_of_vllm_0_32(http, engine):
    answer = await post(http, engine, CHAT, chat("Hi"))
    assert list(answer) == [
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
        "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
    ]  # fmt: skip
    assert list(answer["choices"][0]) == [
        "index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts",
    ]  # fmt: skip
    assert list(answer["choices"][0]["message"]) == [
        "role", "content", "refusal", "annotations", "audio", "function_call", "reasoning",
    ]  # fmt: skip
    assert list(answer["usage"]) == [
        "prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details",
    ]  # fmt: skip
    raw = await post(http, engine, COMPLETIONS, prompt())
    assert list(raw) == [
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
        "kv_transfer_params", "ec_transfer_params", "metrics",
    ]  # fmt: skip
    assert list(raw["choices"][0]) == [
        "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs",
        "prompt_token_ids", "routed_experts",
    ]  # fmt: skip


async def test_the_next_turn_finds_its_history_in_the_cache(http, engine):
    question = "Tell me a long story about a river, a mill and the people who lived beside them."
    turns = [question]
    for _ in range(4):
        answer = await post(http, engine, CHAT, chat(*turns, max_tokens=60))
        held = answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"] - 1
        turns += [text_of(answer), "And then?"]
        cached = (await post(http, engine, CHAT, chat(*turns, max_tokens=1)))["usage"]["prompt_tokens_details"]
        assert cached["cached_tokens"] == held // 16 * 16


async def test_two_engines_agree_and_other_weights_do_not(http, engine):
    async with (
        running_engine(EngineConfig(role="decode", handoff="none")) as same,
        running_engine(EngineConfig(role="aggregated", model=ModelConfig(seed=1))) as other,
    ):
        texts = [text_of(await post(http, one, CHAT, chat("Hi"))) for one in (engine, same, other)]
    assert texts[0] == texts[1] != texts[2]


async def test_salt_and_adapter_have_caches_of_their_own(http):
    async with running_engine(EngineConfig(role="aggregated", adapters=("tuned",))) as engine:
        long = "word " * 100
        cached = []
        for fields in ({}, {"cache_salt": "a"}, {"model": "tuned"}, {"model": "sim"}):
            answer = await post(http, engine, COMPLETIONS, prompt(long, **fields))
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert cached[:3] == [0, 0, 0]
        assert cached[3] > 0


async def test_eviction_forgets_the_oldest_blocks(http):
    async with running_engine(EngineConfig(role="aggregated", cache_blocks=10)) as engine:
        for name in ("a ", "b ", "a "):
            answer = await post(http, engine, COMPLETIONS, prompt(name * 100, max_tokens=1))
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 4 * 16
        assert engine.cache.evicted_blocks > 0


async def test_finish_reasons_and_stop_strings(http, engine):
    whole = text_of(await post(http, engine, COMPLETIONS, prompt(max_tokens=12)))
    word = whole.split()[4]
    stopped = await post(http, engine, COMPLETIONS, prompt(max_tokens=12, stop=[word]))
    assert text_of(stopped) == whole[: whole.index(word)]
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["choices"][0]["stop_reason"] == word
    chunks = await stream(http, engine, COMPLETIONS, prompt(max_tokens=12, stop=[word]))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text_of(stopped)
    kept = await post(http, engine, COMPLETIONS, prompt(max_tokens=12, stop=word, include_stop_str_in_output=True))
    assert text_of(kept) == whole[: whole.index(word) + len(word)]


async def test_answers_stop_unless_told_otherwise(http):
    async with running_engine(EngineConfig(role="aggregated", model=ModelConfig(mean_answer_tokens=5))) as engine:
        free = await post(http, engine, CHAT, chat("Hi", max_tokens=200))
        assert free["choices"][0]["finish_reason"] == "stop"
        for fields in ({"ignore_eos": True}, {"min_tokens": 200}):
            forced = await post(http, engine, CHAT, chat("Hi", max_tokens=200, **fields))
            assert forced["usage"]["completion_tokens"] == 200
            assert forced["choices"][0]["finish_reason"] == "length"


async def test_token_ids_describe_prompt_and_answer(http, engine):
    answer = await post(http, engine, CHAT, chat("Hi", return_token_ids=True))
    ids = answer["choices"][0]["token_ids"]
    assert len(ids) == answer["usage"]["completion_tokens"]
    assert len(answer["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]
    chunks = await stream(http, engine, CHAT, chat("Hi", return_token_ids=True))
    assert chunks[0]["prompt_token_ids"] == answer["prompt_token_ids"]
    assert [token for chunk in chunks[1:] for token in chunk["choices"][0]["token_ids"]] == ids
    raw = await post(http, engine, COMPLETIONS, prompt(answer["prompt_token_ids"], max_tokens=20))
    assert text_of(raw) == text_of(answer)
    text = await post(http, engine, "/detokenize", {"tokens": answer["prompt_token_ids"]})
    again = await post(http, engine, "/tokenize", {"prompt": text["prompt"]})
    assert again["tokens"] == answer["prompt_token_ids"]


async def test_logprobs_have_both_shapes(http, engine):
    answer = await post(http, engine, CHAT, chat("Hi", logprobs=True, top_logprobs=3, max_tokens=4))
    content = answer["choices"][0]["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in content] == [3] * 4
    assert "".join(entry["token"] for entry in content) == text_of(answer)
    assert content[0]["logprob"] == content[0]["top_logprobs"][0]["logprob"] < 0
    raw = await post(http, engine, COMPLETIONS, prompt(logprobs=2, max_tokens=4))
    logprobs = raw["choices"][0]["logprobs"]
    assert {name: len(values) for name, values in logprobs.items()} == dict.fromkeys(logprobs, 4)
    assert logprobs["text_offset"][1] == len(logprobs["tokens"][0])
    chunks = await stream(http, engine, COMPLETIONS, prompt(logprobs=2, max_tokens=4))
    assert [chunk["choices"][0]["logprobs"]["tokens"][0] for chunk in chunks] == logprobs["tokens"]
    assert chunks[1]["choices"][0]["logprobs"]["text_offset"] == [logprobs["text_offset"][1]]


async def test_scoring_an_answer_repeats_its_logprobs_up_to_noise(http):
    noisy = ModelConfig(prefill_noise_nats=0.03)
    async with running_engine(EngineConfig(role="aggregated", model=noisy)) as engine:
        answer = await post(http, engine, COMPLETIONS, prompt(logprobs=1, return_token_ids=True))
        choice = answer["choices"][0]
        whole = choice["prompt_token_ids"] + choice["token_ids"]
        scored = await post(http, engine, COMPLETIONS, prompt(whole, max_tokens=1, prompt_logprobs=1))
        positions = scored["choices"][0]["prompt_logprobs"]
        assert positions[0] is None
        assert len(positions) == len(whole)
        differences = [
            abs(positions[len(choice["prompt_token_ids"]) + place][str(token_id)]["logprob"] - logprob)
            for place, (token_id, logprob) in enumerate(
                zip(choice["token_ids"], choice["logprobs"]["token_logprobs"], strict=True)
            )
        ]
        assert 0 < max(differences) < 0.07


async def test_sampling_is_repeatable_with_a_seed(http, engine):
    body = chat("Hi", temperature=1.0, seed=3, n=3)
    first, second = [await post(http, engine, CHAT, body) for _ in range(2)]
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert len(set(texts)) == 3
    assert first["usage"]["completion_tokens"] > 40
    chunks = await stream(http, engine, CHAT, body)
    for index, text in enumerate(texts):
        parts = [c["choices"][0]["delta"]["content"] for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(parts) == text


async def test_several_prompts_and_echo(http, engine):
    several = await post(http, engine, COMPLETIONS, prompt(["Once upon a time", "Twice"], echo=True))
    single = await post(http, engine, COMPLETIONS, prompt("Twice"))
    assert [choice["index"] for choice in several["choices"]] == [0, 1]
    assert several["choices"][1]["text"] == "Twice" + text_of(single)
    only = await post(http, engine, COMPLETIONS, prompt("Twice", echo=True, max_tokens=0, logprobs=1))
    assert text_of(only) == "Twice"
    assert only["choices"][0]["logprobs"]["token_logprobs"][0] is None
    chunks = await stream(http, engine, COMPLETIONS, prompt("Twice", echo=True, logprobs=0))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Twice" + text_of(single)


async def test_a_required_tool_is_called(http, engine):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    body = chat("Hi", tools=tools, tool_choice="required")
    answer = await post(http, engine, CHAT, body)
    call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "look"
    deltas = [chunk["choices"][0]["delta"] for chunk in (await stream(http, engine, CHAT, body))[1:]]
    assert "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in deltas) == call["arguments"]
    assert json.loads(call["arguments"])["text"]


@pytest.mark.parametrize(
    ("path", "fields", "status", "part"),
    [
        (CHAT, {"max_tokens": -1}, 400, "max_tokens must be at least 1"),
        (CHAT, {"max_tokens": "x"}, 400, "valid integer"),
        (CHAT, {"temperature": 3}, 400, "temperature must be in"),
        (CHAT, {"min_tokens": 21}, 400, "min_tokens must be less than or equal to max_tokens=20"),
        (CHAT, {"messages": []}, 400, "non-empty list"),
        (CHAT, {"model": "other"}, 404, "does not exist"),
        (CHAT, {"messages": [{"role": "user", "content": "word " * 40_000}]}, 400, "maximum context length"),
        (CHAT, {"top_logprobs": 2}, 400, "must be set to true"),
        (CHAT, {"stream_options": {"include_usage": True}}, 400, "stream=True"),
        (CHAT, {"n": 2}, 400, "greedy"),
        (COMPLETIONS, {"prompt": ""}, 400, "non-empty"),
        (COMPLETIONS, {"prompt": [1, -5]}, 400, "out of vocabulary"),
        (COMPLETIONS, {"stop": [""]}, 400, "empty string"),
        (COMPLETIONS, {"kv_transfer_params": 3}, 400, "valid dictionary"),
    ],
)
async def test_bad_requests_are_refused_as_vllm_does(http, engine, path, fields, status, part):
    body = {**(chat("Hi") if path == CHAT else prompt()), **fields}
    error = (await post(http, engine, path, body, status))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert part in error["message"]


async def test_bodies_that_are_no_json_object_are_refused(http, engine):
    for data in (b"{", b"[1]", b"\xff"):
        async with http.post(engine.url + CHAT, data=data) as response:
            assert response.status == 400


async def test_other_endpoints_answer(http, engine):
    for path in ("/health", "/version", "/v1/models", "/metrics", "/sim/state"):
        async with http.get(engine.url + path) as response:
            assert response.status == 200
    for path, status in (("/nothing", 404), (CHAT, 405)):
        async with http.get(engine.url + path) as response:
            assert response.status == status
    vectors = await post(http, engine, "/v1/embeddings", {"input": ["a", "b"]})
    assert len(vectors["data"]) == 2
    response = await post(http, engine, "/v1/responses", {"input": "Hi"})
    message = await post(http, engine, "/v1/messages", {"messages": [{"role": "user", "content": "Hi"}]})
    assert response["output"][0]["content"][0]["text"] == message["content"][0]["text"]


async def test_key_is_wanted_on_v1_only(http):
    async with running_engine(EngineConfig(role="aggregated", api_key="k")) as engine:
        await post(http, engine, CHAT, chat("Hi"), 401)
        await post(http, engine, CHAT, chat("Hi"), 200, Authorization="Bearer k")
        async with http.get(engine.url + "/health") as response:
            assert response.status == 200


async def test_a_client_that_leaves_ends_its_request(http, spawn, until):
    timing = TimingConfig(decode_ms_per_token=10_000, slots=1)
    async with running_engine(EngineConfig(role="aggregated", timing=timing)) as engine:
        async with http.post(engine.url + CHAT, json=chat("Hi", stream=True)) as response:
            await response.content.readany()
            waiting = spawn(post(http, engine, CHAT, chat("Hi")))
            await until(lambda: engine.core.slots.waiting == 1)
            waiting.cancel()
            await until(lambda: engine.counts.aborts == 1)
            assert (engine.core.slots.running, engine.core.slots.waiting) == (1, 0)
            response.close()
        await until(lambda: engine.counts.aborts == 2)
        assert engine.core.slots.running == 0
        assert engine.core.cache_usage == 0.0


async def test_times_pass_as_configured(http):
    timing = TimingConfig(prefill_tokens_per_s=10_000, prefill_fixed_ms=20, decode_ms_per_token=5)
    async with running_engine(EngineConfig(role="aggregated", timing=timing)) as engine:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        answer = await post(http, engine, CHAT, chat("Hi", max_tokens=10, ignore_eos=True))
        took_s = loop.time() - started_at
        expected_s = 0.020 + answer["usage"]["prompt_tokens"] / 10_000 + 9 * 0.005
        assert took_s >= expected_s


async def test_metrics_tell_where_prompt_tokens_came_from(http):
    async with running_engine(EngineConfig(role="aggregated", metric_names="both")) as engine:
        for _ in range(2):
            await post(http, engine, COMPLETIONS, prompt("word " * 40))
        async with http.get(engine.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}
    label = 'engine="0",model_name="sim"'
    assert values[f"vllm:prefix_cache_queries_total{{{label}}}"] == 82
    assert values[f"vllm:prefix_cache_hits_total{{{label}}}"] == 32
    assert values[f"vllm:gpu_prefix_cache_hits_total{{{label}}}"] == 32
    assert values[f'vllm:prompt_tokens_by_source_total{{{label},source="local_cache_hit"}}'] == 32
    assert values[f'vllm:prompt_tokens_by_source_total{{{label},source="local_compute"}}'] == 50
    assert values[f"vllm:time_to_first_token_seconds_count{{{label}}}"] == 2
    assert values[f"vllm:num_requests_running{{{label}}}"] == 0


async def test_pipelined_requests_and_idle_connections(http):
    async with running_engine(EngineConfig(role="aggregated", keep_alive_s=0.01)) as engine:
        reader, writer = await asyncio.open_connection(engine.core.host, engine.core.port)
        request = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request + request)
        async with asyncio.timeout(LIMIT_S):
            data = await reader.read()
        assert data.count(b"HTTP/1.1 200 OK") == 2
        writer.close()
        await writer.wait_closed()


async def test_what_is_not_http_is_refused(engine):
    reader, writer = await asyncio.open_connection(engine.core.host, engine.core.port)
    writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()
