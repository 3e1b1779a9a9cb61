"""Which requests a handoff may carry, and that both legs of every one that it carries are the same prompt."""

import json

import pytest
from tests.support.cluster import CHAT, COMPLETIONS, ask_engine, assistant, running_cluster, user

from ppd_proxy.config.sections import Routing

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
PNG = "data:image/png;base64,iVBORw0KGgo="
IMAGE = [{"type": "text", "text": "What is in this picture?"}, {"type": "image_url", "image_url": {"url": PNG}}]
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "mill"}'}}],
}

CHATS = {
    "plain": {},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, user("Hello")]},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, user("Hello")]},
    "streamed": STREAMED,
    "tools": {"tools": [TOOL]},
    "tools and tool_choice none": {"tools": [TOOL], "tool_choice": "none"},
    "tools and tool_choice required": {"tools": [TOOL], "tool_choice": "required"},
    "tools and a named tool": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
    "tools streamed": {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, **STREAMED},
    "tool result": {"tools": [TOOL], "messages": [
        user("Look it up"), CALLED, {"role": "tool", "tool_call_id": "c1", "content": "A building."},
    ]},
    "response_format": {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
    "json_object": {"response_format": {"type": "json_object"}},
    "structured outputs": {"structured_outputs": {"json": SCHEMA}},
    "guided_json": {"guided_json": SCHEMA},
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": False}},
    "chat_template": {"chat_template": "{{ messages }}"},
    "documents": {"documents": [{"title": "Mills", "text": "They grind."}]},
    "no generation prompt": {"add_generation_prompt": False},
    "continued answer": {
        "messages": [user("Say it"), assistant("It is")],
        "continue_final_message": True, "add_generation_prompt": False,
    },
    "image": {"messages": [user(IMAGE)]},
    "part list": {"messages": [user([{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}])]},
    "unknown fields": {"a_field_of_tomorrow": {"b": [1, None, "x"]}, "user": "u", "metadata": {"k": "v"}},
    "unicode": {"messages": [user("Ünïcödé 漢字 🙂 \\u0000 \" \n\t")]},
    "max_completion_tokens": {"max_completion_tokens": 7, "max_tokens": None},
    "both limits": {"max_completion_tokens": 7, "max_tokens": 9},
    "no limit": {"max_tokens": None},
    "min_tokens": {"min_tokens": 5},
    "stop": {"stop": ["the", "a"], "include_stop_str_in_output": True},
    "stop ids": {"stop_token_ids": [46]},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "logprobs streamed": {"logprobs": True, "top_logprobs": 2, **STREAMED},
    "echo": {"echo": True},
    "sampling": {"temperature": 0.9, "top_p": 0.8, "top_k": 20, "seed": 11, "presence_penalty": 0.1},
    "ignore_eos": {"ignore_eos": True},
    "n of one": {"n": 1},
    "token ids": {"return_token_ids": True},
    "token ids streamed": {"return_token_ids": True, **STREAMED},
    "continuous usage": {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    "priority": {"priority": 3},
    "cache_salt": {"cache_salt": "pepper"},
    "adapter": {"model": "lora"},
    "nulls": {"tools": None, "stop": None, "n": None, "stream": None, "logprobs": None, "response_format": None},
}  # fmt: skip
COMPLETION_SHAPES = {
    "plain": {},
    "streamed": STREAMED,
    "token ids": {"prompt": list(range(1500, 1540))},
    "one text in a list": {"prompt": ["Once upon a time"]},
    "one id list in a list": {"prompt": [[1500, 1501, 1502]]},
    "echo": {"echo": True},
    "echo streamed": {"echo": True, **STREAMED},
    "logprobs": {"logprobs": 3},
    "logprobs streamed": {"logprobs": 2, **STREAMED},
    "suffix and user": {"suffix": None, "user": "u"},
    "min_tokens": {"min_tokens": 6},
    "stop": {"stop": "the"},
    "best_of one": {"best_of": 1, "n": 1},
    "token ids asked for": {"return_token_ids": True},
    "no limit": {"max_tokens": None},
    "one token": {"max_tokens": 1},
    "sampling": {"temperature": 1.2, "seed": 3, "top_k": 5},
    "special tokens": {"prompt": "<|user|>\nHi<|end|>\n<|assistant|>\n", "add_special_tokens": False},
}


def shown(reply):
    """What the client sees, without ids, times, caches and what is null here and absent there."""
    parts = reply.events if reply.is_stream else [reply.json]
    for part in parts:
        for name in ("id", "created", "kv_transfer_params"):
            part.pop(name, None)
        if part.get("usage"):
            part["usage"]["prompt_tokens_details"] = None
        for choice in part["choices"]:
            for name in ("token_ids", "prompt_token_ids"):
                if choice.get(name) is None:
                    choice.pop(name, None)
            for call in (choice.get("message") or choice.get("delta") or {}).get("tool_calls") or ():
                call.pop("id", None)
    return parts, reply.is_stream and reply.payloads[-1]


def difference(reply, expected):
    """How the two answers differ, in words; None when they do not."""
    if reply.status != expected.status:
        return f"{reply.status} instead of {expected.status}: {reply.body!r}"
    if expected.status != 200:
        return f"the shape itself is refused: {expected.body!r}"
    got, wanted = shown(reply), shown(expected)
    return None if got == wanted else f"{json.dumps(got)} instead of {json.dumps(wanted)}"


@pytest.mark.parametrize(
    ("path", "shapes"), [pytest.param(CHAT, CHATS, id="chat"), pytest.param(COMPLETIONS, COMPLETION_SHAPES, id="raw")]
)
async def test_every_shape_is_handed_over_as_one_prompt_and_answered_as_by_one_engine(path, shapes):
    """Nothing of the first try may serve the second: in mode pd, with engines that have no prefix cache."""
    engine = {"has_prefix_cache": False, "adapters": ("lora",), "default_max_tokens": 12}
    wrong = {}
    async with running_cluster(aggregated=1, engine=engine, routing=Routing(mode="pd")) as cluster:
        (whole,) = cluster.aggregated
        for name, fields in shapes.items():
            start = {"messages": [user("Tell me of the mill")]} if path == CHAT else {"prompt": "Once upon a time"}
            body = {**start, "model": "sim", "max_tokens": 12, "temperature": 0, **fields}
            before = cluster.decode.counts.transfers
            reply = await cluster.ask(path, body)
            expected = await ask_engine(cluster.http, whole, path, body)
            differs = difference(reply, expected)
            if differs is None and reply.route != "pd":
                differs = reply.decision
            if differs is None and cluster.decode.counts.transfers != before + 1:
                differs = "no KV was transferred"
            if differs is not None:
                wrong[name] = differs
            unsent = {k: v for k, v in fields.items() if cluster.decode.requests[-1].body.get(k) != v}
            unsent.pop("stream_options", None)
            if unsent:
                wrong[name] = f"did not reach the decode engine as it was: {unsent}"
        assert wrong == {}
        assert cluster.decode.counts.mismatched_handoffs == 0
        assert cluster.is_idle


SEVERAL = {
    "texts": (COMPLETIONS, {"prompt": ["One", "Two"]}),
    "id lists": (COMPLETIONS, {"prompt": [[1500, 1501], [1502]]}),
    "n": (COMPLETIONS, {"prompt": "One", "n": 2, "temperature": 1}),
    "n in a stream": (COMPLETIONS, {"prompt": "One", "n": 2, "temperature": 1, "stream": True}),
    "best_of": (COMPLETIONS, {"prompt": "One", "best_of": 3, "temperature": 1}),
    "beam search": (COMPLETIONS, {"prompt": "One", "use_beam_search": True}),
    "n of a chat": (CHAT, {"messages": [user("One")], "n": 3, "temperature": 1}),
    "n of a streamed chat": (CHAT, {"messages": [user("One")], "n": 2, "temperature": 1, "stream": True}),
}


@pytest.mark.parametrize("aggregated", [1, 0], ids=["with an aggregated engine", "without one"])
async def test_several_sequences_never_carry_kv(aggregated):
    async with running_cluster(aggregated=aggregated) as cluster:
        # A known history would otherwise be a reason to go to its home.
        await cluster.complete("One")
        for name, (path, body) in SEVERAL.items():
            reply = await cluster.ask(path, {**body, "max_tokens": 6})
            assert reply.status == 200, name
            route = "aggregated" if aggregated else "direct"
            assert reply.decision == f"{route};reason=multi_sequence;turn=1", name
        answering = cluster.aggregated if aggregated else cluster.decodes
        assert len(answering[0].requests) == len(SEVERAL) + (0 if aggregated else 1)
        for engine in cluster.engines:
            assert engine.counts.multi_sequence_handoffs == 0
        assert len(cluster.prefill.requests) == 1
        last = [received.body for received in answering[0].requests[-len(SEVERAL) :]]
        assert all(body.get("kv_transfer_params") is None for body in last)


async def test_every_choice_of_several_comes_back():
    async with running_cluster() as cluster:
        reply = await cluster.complete(["One", "Two", "Three"], max_tokens=4)
        assert [choice["index"] for choice in reply.json["choices"]] == [0, 1, 2]
        stream = await cluster.chat("One", n=3, temperature=1, stream=True)
        assert {choice["index"] for event in stream.events for choice in event["choices"]} == {0, 1, 2}
        assert stream.payloads[-1] == "[DONE]"


@pytest.mark.parametrize("aggregated", [1, 0], ids=["with an aggregated engine", "without one"])
async def test_prompt_logprobs_are_made_where_the_whole_prompt_is_computed(aggregated):
    async with running_cluster(aggregated=aggregated) as cluster:
        for path, body in (
            (COMPLETIONS, {"prompt": "Once upon a time", "prompt_logprobs": 1}),
            (COMPLETIONS, {"prompt": "Once upon a time", "echo": True, "logprobs": 1}),
            (CHAT, {"messages": [user("One")], "prompt_logprobs": 0}),
        ):
            reply = await cluster.ask(path, {**body, "max_tokens": 3})
            assert reply.status == 200
            assert reply.route == ("aggregated" if aggregated else "direct")
            assert reply.reason == "prompt_logprobs"
        assert cluster.prefill.requests == []
        scored = (await cluster.complete("Once upon a time", prompt_logprobs=1)).json["choices"][0]
        assert len(scored["prompt_logprobs"]) > 3


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_a_clients_own_handoff_parameters_reach_no_engine(stream):
    own = {"do_remote_prefill": True, "remote_engine_id": "evil", "remote_block_ids": [[1]]}
    async with running_cluster(aggregated=1) as cluster:
        for path, body in (
            (CHAT, {"messages": [user("Hi")]}),
            (COMPLETIONS, {"prompt": "Hi"}),
            (COMPLETIONS, {"prompt": ["Hi", "Ho"]}),
            ("/v1/responses", {"input": "Hi"}),
        ):
            if path == "/v1/responses" and stream:
                continue
            sent = {
                **body, "stream": stream, "max_tokens": 3, "kv_transfer_params": own,
                "vllm_xargs": {"kv_transfer_params": own, "kept": 1},
            }  # fmt: skip
            reply = await cluster.ask(path, sent)
            assert reply.status == 200, reply.body
            assert b"kv_transfer_params" not in reply.body
        received = [each.body for engine in cluster.engines for each in engine.requests]
        assert all("evil" not in json.dumps(body) for body in received)
        assert all(body["vllm_xargs"] == {"kept": 1} for body in received)


async def test_fields_the_operator_strips_reach_no_engine():
    async with running_cluster(routing=Routing(strip_field=("conversation_id",))) as cluster:
        reply = await cluster.chat("Hi", conversation_id="c", other=1)
        assert reply.status == 200
        for engine in cluster.engines:
            assert "conversation_id" not in engine.requests[-1].body
            assert engine.requests[-1].body["other"] == 1


async def test_headers_travel_to_both_legs_and_hop_by_hop_ones_stay():
    async with running_cluster() as cluster:
        sent = {
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b",
            "baggage": "x=y", "x-data-parallel-rank": "1", "x-request-id": "mine", "te": "trailers",
            "accept-encoding": "gzip",
        }  # fmt: skip
        reply = await cluster.chat("Hi", headers=sent)
        assert reply.headers["x-request-id"] == "mine"
        legs = [engine.requests[0].headers for engine in (cluster.prefill, cluster.decode)]
        for headers in legs:
            for name in ("traceparent", "tracestate", "baggage", "x-data-parallel-rank"):
                assert headers[name] == sent[name]
            assert not {"te", "accept-encoding"} & set(headers)
            assert headers["x-request-id"] != "mine"
        assert legs[0]["x-request-id"] == legs[1]["x-request-id"]
        assert "authorization" not in legs[0]


async def test_a_streams_usage_chunk_comes_only_to_who_asked():
    async with running_cluster() as cluster:
        without = await cluster.chat("Hi", stream=True)
        asked = await cluster.chat("Ho", stream=True, stream_options={"include_usage": True})
        assert all("usage" not in event or event["usage"] is None for event in without.events)
        assert asked.events[-1]["choices"] == []
        assert asked.events[-1]["usage"]["completion_tokens"] == 20
        assert without.headers["content-type"].startswith("text/event-stream")
        assert (await cluster.chat("Hey")).headers["content-type"] == "application/json"
