"""What simulated engines write where parsers hold back, in vLLM's order of fields."""

import json

import pytest

from ppd_sim.config import EngineConfig
from ppd_sim.engine import running_engine
from ppd_sim.model.model import ModelConfig

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


def chat(**fields):
    return {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12, "temperature": 0, **fields}


async def post(http, engine, path, body):
    async with http.post(engine.url + path, json=body) as response:
        assert response.status == 200
        return await response.json()


async def stream(http, engine, path, body):
    async with http.post(engine.url + path, json={**body, "stream": True}) as response:
        assert response.status == 200
        events = (await response.text()).split("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]


def deltas(chunks):
    return [chunk["choices"][0]["delta"] for chunk in chunks[1:]]


async def test_reasoning_comes_first_and_its_end_is_held_back(http):
    async with running_engine(EngineConfig(role="decode", reasoning_tokens=4)) as engine:
        message = (await post(http, engine, CHAT, chat()))["choices"][0]["message"]
        pieces = deltas(await stream(http, engine, CHAT, chat()))
        asked = deltas(await stream(http, engine, CHAT, chat(return_token_ids=True)))
        assert message["reasoning"] == "".join(piece.get("reasoning", "") for piece in pieces)
        assert message["content"] == "".join(piece.get("content", "") for piece in pieces)
        assert [list(piece) for piece in pieces] == [["reasoning"]] * 3 + [["content"]] * 8
        assert asked == [*pieces[:3], {}, *pieces[3:]]
        text = await post(http, engine, COMPLETIONS, {"prompt": "Hi", "temperature": 0})
        assert text["choices"][0]["text"]


@pytest.mark.parametrize("wish", [{"return_token_ids": True}, {"logprobs": True}], ids=str)
async def test_a_required_call_is_held_back_until_its_name_is_complete(http, engine, wish):
    body = chat(tools=TOOLS, tool_choice="required")
    pieces = deltas(await stream(http, engine, CHAT, body))
    asked = deltas(await stream(http, engine, CHAT, {**body, **wish}))
    assert all(list(piece) == ["tool_calls"] for piece in pieces)
    assert asked[0] == {}
    assert len(asked) == len(pieces) + 1
    assert "name" in pieces[0]["tool_calls"][0]["function"]


async def test_fields_stand_in_vllms_order(http, engine):
    options = {"include_usage": True, "continuous_usage_stats": True}
    (role, *_) = await stream(http, engine, CHAT, chat(stream_options=options))
    assert list(role)[-3:] == ["usage", "prompt_token_ids", "prompt_text"]
    answer = await post(http, engine, CHAT, chat(tools=TOOLS, tool_choice="required"))
    assert list(answer["choices"][0]["message"])[-3:] == ["function_call", "tool_calls", "reasoning"]


async def test_an_echo_tells_the_prompts_token_ids_unasked(http, engine):
    body = {"prompt": [1500, 1600], "max_tokens": 3, "temperature": 0, "echo": True}
    first, *more = await stream(http, engine, COMPLETIONS, body)
    assert first["choices"][0]["prompt_token_ids"] == [1500, 1600]
    assert all(chunk["choices"][0]["prompt_token_ids"] is None for chunk in more)


async def test_half_a_character_is_held_back(http):
    model = ModelConfig(split_character_share=0.5)
    async with running_engine(EngineConfig(role="decode", model=model)) as engine:
        body = {"prompt": "Hi", "max_tokens": 40, "temperature": 0, "logprobs": 0, "return_token_ids": True}
        choice = (await post(http, engine, COMPLETIONS, body))["choices"][0]
        chunks = await stream(http, engine, COMPLETIONS, body)
        texts = [chunk["choices"][0]["text"] for chunk in chunks]
        assert "é" in choice["text"]
        assert "�" not in choice["text"]
        assert "".join(texts) == choice["text"]
        assert texts[choice["token_ids"].index(0xC3)] == ""
        assert texts[choice["token_ids"].index(0xC3) + 1] == "é"
