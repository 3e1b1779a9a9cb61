"""The official clients of OpenAI and Anthropic against an engine that breaks off: an exception every time."""

import json
from contextlib import asynccontextmanager

import anthropic
import openai
import pytest
from aiohttp import web
from tests.support.cluster import CHAT, COMPLETIONS, LIMIT_S, running_proxy, scripted_engine

from ppd_proxy.config.sections import Auth, Limits

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
KEY = "client-key"
HI = [{"role": "user", "content": "Hi"}]


def data(**fields):
    return f"data: {json.dumps(fields)}\n\n".encode()


def typed(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def choice(**fields):
    return data(id="x", object="chat.completion.chunk", created=1, model="m", choices=[{"index": 0, **fields}])


RESPONSE = {
    "id": "resp_x", "object": "response", "created_at": 1, "model": "m", "output": [], "parallel_tool_calls": True,
    "tool_choice": "auto", "tools": [],
}  # fmt: skip
MESSAGE = {
    "id": "msg_x", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 0},
}  # fmt: skip
OUTPUT = {"item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []}
BEGIN = {
    CHAT: [choice(delta={"role": "assistant", "content": ""})],
    COMPLETIONS: [],
    RESPONSES: [
        typed("response.created", response={**RESPONSE, "status": "in_progress"}, sequence_number=0),
        typed("response.in_progress", response={**RESPONSE, "status": "in_progress"}, sequence_number=1),
    ],
    MESSAGES: [
        typed("message_start", message=MESSAGE),
        typed("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ],
}
CONTENT = {
    CHAT: [choice(delta={"content": "one "}), choice(delta={"content": "two"})],
    COMPLETIONS: [choice(text="one "), choice(text="two")],
    RESPONSES: [
        typed("response.output_text.delta", delta=word, sequence_number=number, **OUTPUT)
        for number, word in ((2, "one "), (3, "two"))
    ],
    MESSAGES: [
        typed("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in ("one ", "two")
    ],
}
END = {
    CHAT: [choice(delta={}, finish_reason="stop"), b"data: [DONE]\n\n"],
    COMPLETIONS: [choice(text="", finish_reason="stop"), b"data: [DONE]\n\n"],
    RESPONSES: [
        typed("response.completed", response={**RESPONSE, "status": "completed"}, sequence_number=4)
    ],
    MESSAGES: [
        typed("content_block_stop", index=0),
        typed("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 2}),
        typed("message_stop"),
    ],
}  # fmt: skip
OPENAI_ERROR = data(error={"message": "lost the KV", "type": "InternalServerError", "param": None, "code": 500})
ERROR = {
    CHAT: OPENAI_ERROR,
    COMPLETIONS: OPENAI_ERROR,
    RESPONSES: typed("error", code="server_error", message="lost the KV", param=None, sequence_number=2),
    MESSAGES: typed("error", error={"type": "internal_error", "message": "lost the KV"}),
}
PATHS = [CHAT, COMPLETIONS, RESPONSES, MESSAGES]


@asynccontextmanager
async def talking(path, events, *, is_cut=False):
    """A function that asks for a stream with the official client of `path` and reads all of it; gives the words."""

    async def answer(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for event in events:
            await response.write(event)
        if is_cut:
            request.transport.abort()
        return response

    async with (
        scripted_engine(answer, path) as url,
        running_proxy(auth=Auth(api_key=(KEY,)), limits=Limits(idle_timeout_s=1.0)) as cluster,
        openai.AsyncOpenAI(base_url=cluster.url + "/v1", api_key=KEY, max_retries=0, timeout=LIMIT_S) as to_openai,
        anthropic.AsyncAnthropic(base_url=cluster.url, api_key=KEY, max_retries=0, timeout=LIMIT_S) as to_anthropic,
    ):
        await cluster.ask("/engines", {"url": url, "role": "aggregated"})

        async def ask(**fields):
            if path == MESSAGES:
                stream = await to_anthropic.messages.create(
                    model="m", max_tokens=9, messages=HI, stream=True, **fields
                )
                return [event.delta.text async for event in stream if event.type == "content_block_delta"]
            if path == RESPONSES:
                stream = await to_openai.responses.create(model="m", input="Hi", stream=True, **fields)
                return [event.delta async for event in stream if event.type == "response.output_text.delta"]
            if path == CHAT:
                stream = await to_openai.chat.completions.create(model="m", messages=HI, stream=True, **fields)
                return [part.choices[0].delta.content async for part in stream if part.choices[0].delta.content]
            stream = await to_openai.completions.create(model="m", prompt="Hi", stream=True, **fields)
            return [part.choices[0].text async for part in stream if part.choices[0].text]

        yield ask, cluster, to_anthropic


ERRORS = (openai.APIError, anthropic.APIError)


@pytest.mark.parametrize("path", PATHS)
async def test_a_whole_stream_is_read_to_its_end(path):
    async with talking(path, [*BEGIN[path], *CONTENT[path], *END[path]]) as (ask, _, _):
        assert await ask() == ["one ", "two"]


@pytest.mark.parametrize("path", PATHS)
async def test_w4_an_engine_that_dies_in_the_middle_is_an_exception(path):
    async with talking(path, [*BEGIN[path], *CONTENT[path]], is_cut=True) as (ask, _, _):
        with pytest.raises(ERRORS):
            await ask()


@pytest.mark.parametrize("path", PATHS)
async def test_w4_an_engine_that_ends_early_is_an_exception(path):
    async with talking(path, [*BEGIN[path], *CONTENT[path], *END[path][:-1]]) as (ask, _, _):
        with pytest.raises(ERRORS):
            await ask()


@pytest.mark.parametrize("path", PATHS)
async def test_w4_an_engine_that_ends_before_any_content_is_an_exception(path):
    async with talking(path, BEGIN[path]) as (ask, _, _):
        with pytest.raises(ERRORS) as broken:
            await ask()
        assert broken.value.status_code == 502


@pytest.mark.parametrize("path", PATHS)
async def test_w4_an_error_before_any_content_is_a_status(path):
    async with talking(path, [*BEGIN[path], ERROR[path], *END[path]]) as (ask, _, _):
        with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as broken:
            await ask()
        assert broken.value.status_code == 500
        assert "lost the KV" in broken.value.message


@pytest.mark.parametrize("path", PATHS)
async def test_w4_an_error_behind_content_is_an_exception(path):
    for failure in (ERROR[path], OPENAI_ERROR, b"event: error\ndata: lost the KV\n\n"):
        async with talking(path, [*BEGIN[path], *CONTENT[path], failure, *END[path]]) as (ask, _, _):
            with pytest.raises(ERRORS) as broken:
                await ask()
            assert "lost the KV" in str(broken.value)


async def test_w4_the_streaming_helper_of_anthropic_raises_too():
    async with talking(MESSAGES, [*BEGIN[MESSAGES], *CONTENT[MESSAGES]], is_cut=True) as (_, _, client):
        with pytest.raises(anthropic.APIError):
            async with client.messages.stream(model="m", max_tokens=9, messages=HI) as stream:
                await stream.get_final_message()


@pytest.mark.parametrize("path", PATHS)
async def test_w4_our_own_refusals_are_exceptions_with_their_status(path):
    async with talking(path, []) as (ask, cluster, _):
        wrong = {"authorization": "Bearer wrong", "x-api-key": "wrong"}
        with pytest.raises((openai.AuthenticationError, anthropic.AuthenticationError)) as refused:
            await ask(extra_headers=wrong)
        assert refused.value.status_code == 401
        (engine,) = [each["id"] for each in (await cluster.ask("/engines")).json["engines"]]
        await cluster.ask(f"/engines/{engine}", method="DELETE")
        with pytest.raises(ERRORS) as gone:
            await ask()
        assert gone.value.status_code == 503
        if path == MESSAGES:
            assert gone.value.body["type"] == "error"
            assert gone.value.body["error"]["type"] == "overloaded_error"
            assert refused.value.body["error"]["type"] == "authentication_error"


# W8: what is told of them


async def test_w8_the_first_text_makes_the_time_to_the_first_token_and_usage_is_whole(capfd):
    end = [
        typed("message_delta", delta={"stop_reason": "end_turn"}, usage={
            "input_tokens": 74, "cache_read_input_tokens": 1700, "cache_creation_input_tokens": 92, "output_tokens": 2,
        }),
        typed("message_stop"),
    ]  # fmt: skip
    async with talking(MESSAGES, [*BEGIN[MESSAGES], *CONTENT[MESSAGES], *end]) as (ask, cluster, _):
        await ask()
        assert (await cluster.ask("/health")).status == 200
    line = [line for line in capfd.readouterr().err.splitlines() if "ppd_proxy.request" in line][-1]
    assert "prompt_tokens=1866" in line
    assert "cached_tokens=1700" in line
    assert "completion_tokens=2" in line
    assert "ttft_ms=" in line
