"""The official OpenAI client through the proxy."""

import asyncio
from contextlib import asynccontextmanager

import openai
import pytest
from tests.support.cluster import LIMIT_S, running_cluster

from ppd_proxy.config.sections import Auth
from ppd_sim.faults import Fault

KEY = "client-key"
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"word": {"type": "string"}}}},
}


@asynccontextmanager
async def talking(**sections):
    async with (
        running_cluster(auth=Auth(api_key=(KEY,)), **sections) as cluster,
        openai.AsyncOpenAI(base_url=cluster.url + "/v1", api_key=KEY, max_retries=0, timeout=LIMIT_S) as client,
    ):
        yield cluster, client


async def test_a_chat_goes_direct_from_the_second_turn_on():
    async with talking() as (cluster, client):
        messages, routes = [], []
        for number in range(5):
            messages.append({"role": "user", "content": f"Question {number}"})
            raw = await client.chat.completions.with_raw_response.create(
                model="sim", messages=messages, max_tokens=12, temperature=0, extra_body={"ignore_eos": True}
            )
            answer = raw.parse()
            routes.append(raw.headers["x-ppd-decision"].partition(";")[0])
            assert answer.usage.completion_tokens == 12
            assert answer.choices[0].finish_reason == "length"
            messages.append(answer.choices[0].message.model_dump(exclude_none=True))
        assert routes == ["pd"] + ["direct"] * 4
        assert len(cluster.prefill.requests) == 1


async def test_a_streamed_chat_goes_direct_from_the_second_turn_on():
    async with talking() as (cluster, client):
        messages = []
        for number in range(4):
            messages.append({"role": "user", "content": f"Question {number}"})
            stream = await client.chat.completions.create(
                model="sim", messages=messages, max_tokens=12, stream=True, stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].usage.completion_tokens == 12
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            messages.append({"role": "assistant", "content": text})
        assert len(cluster.prefill.requests) == 1


async def test_completions_with_and_without_streaming():
    async with talking() as (cluster, client):
        prompt = "Once upon a time"
        first = await client.completions.create(model="sim", prompt=prompt, max_tokens=8, temperature=0)
        stream = await client.completions.create(model="sim", prompt=prompt, max_tokens=8, temperature=0, stream=True)
        said = "".join([chunk.choices[0].text async for chunk in stream])
        assert said == first.choices[0].text
        await client.completions.create(model="sim", prompt=prompt + said + " And then", max_tokens=8)
        assert len(cluster.prefill.requests) == 2
        several = await client.completions.create(model="sim", prompt=["a", "b"], max_tokens=2)
        assert len(several.choices) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_a_tool_call_comes_back_and_its_result_is_the_next_turn(stream):
    async with talking() as (cluster, client):
        messages = [{"role": "user", "content": "Look mill up"}]
        asked = {"model": "sim", "tools": [TOOL], "tool_choice": "required", "max_tokens": 6, "temperature": 0}
        if stream:
            parts = [
                part
                async for chunk in await client.chat.completions.create(messages=messages, stream=True, **asked)
                for choice in chunk.choices
                for part in choice.delta.tool_calls or ()
            ]
            call_id, name = parts[0].id, parts[0].function.name
            arguments = "".join(part.function.arguments or "" for part in parts)
        else:
            answer = await client.chat.completions.create(messages=messages, **asked)
            (call,) = answer.choices[0].message.tool_calls
            call_id, name, arguments = call.id, call.function.name, call.function.arguments
        assert name == "look_up"
        assert arguments.endswith("}")
        called = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": call_id, "content": "A building."},
        ]
        raw = await client.chat.completions.with_raw_response.create(messages=messages, **asked)
        assert raw.headers["x-ppd-decision"] == "direct;reason=known_history;turn=2"
        assert cluster.prefill.requests[0].body["tools"] == [TOOL]


async def test_other_endpoints_and_logprobs():
    async with talking() as (_, client):
        assert [model.id async for model in client.models.list()] == ["sim"]
        assert len((await client.embeddings.create(model="sim", input=["a", "b"])).data) == 2
        response = await client.responses.create(model="sim", input="Hi", max_output_tokens=4)
        assert response.output_text
        stream = await client.responses.create(model="sim", input="Hi", max_output_tokens=4, stream=True)
        events = [event async for event in stream]
        assert events[-1].response.output_text == response.output_text
        answer = await client.chat.completions.create(
            model="sim",
            messages=[{"role": "user", "content": "Hi"}],
            logprobs=True,
            top_logprobs=2,
            max_tokens=3,
            seed=1,
        )
        assert [len(each.top_logprobs) for each in answer.choices[0].logprobs.content] == [2, 2, 2]


async def test_the_synchronous_client_works_too():
    async with talking() as (cluster, _):

        def talk():
            with openai.OpenAI(base_url=cluster.url + "/v1", api_key=KEY, max_retries=0, timeout=LIMIT_S) as client:
                messages = [{"role": "user", "content": "Hi"}]
                answer = client.chat.completions.create(model="sim", messages=messages, max_tokens=4, seed=1)
                stream = client.chat.completions.create(
                    model="sim", messages=messages, max_tokens=4, seed=1, stream=True
                )
                return answer.choices[0].finish_reason, len(list(stream))

        assert await asyncio.to_thread(talk) == ("length", 5)


async def test_errors_are_the_clients_exceptions():
    messages = [{"role": "user", "content": "Hi"}]
    async with talking() as (cluster, client):
        create = client.chat.completions.create
        with pytest.raises(openai.BadRequestError) as bad:
            await create(model="sim", messages=messages, top_p=9)
        assert bad.value.status_code == 400
        assert "top_p" in bad.value.message
        with pytest.raises(openai.NotFoundError):
            await create(model="nobody", messages=messages)
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.with_options(api_key="wrong").chat.completions.create(model="sim", messages=messages)
        assert refused.value.body["reason"] == "unauthorized"
        for stream in (False, True):
            cluster.decode.faults.clear()
            cluster.decode.faults.add(Fault(kind="error_after", chunks=0))
            with pytest.raises(openai.InternalServerError):
                await create(model="sim", messages=messages, stream=stream)
        cluster.decode.faults.clear()
        cluster.decode.faults.add(Fault(kind="die_after", chunks=2))
        stream = await create(model="sim", messages=messages, stream=True)
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass
        await cluster.ask(f"/engines/{cluster.prefill.http_address}", method="DELETE")
        with pytest.raises(openai.InternalServerError) as gone:
            await create(model="sim", messages=messages)
        assert gone.value.status_code == 503
        assert gone.value.response.headers["retry-after"]


async def test_the_clients_own_retries_reach_an_engine_that_came_back():
    async with talking() as (cluster, client):
        cluster.prefill.faults.add(Fault(kind="status", status=500, times=2))
        patient = client.with_options(max_retries=2)
        answer = await patient.chat.completions.create(
            model="sim", messages=[{"role": "user", "content": "Hi"}], max_tokens=2
        )
        assert answer.choices[0].message.content
