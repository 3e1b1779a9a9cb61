"""The official OpenAI client through the proxy in front of a real split vLLM, against the unsplit engine's answers."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from tests.vllm.engine_calls import LIMIT_S, call
from tests.vllm.test_split import prompt_of

from cluster import Cluster, ClusterSpec, make_model, split_engines

PD, DIRECT = "pd;reason=first_turn;turn=1", "direct;reason=known_history;turn=2"
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string", "enum": ["river", "mountain"]}},
            "required": ["word"],
        },
    },
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "lookup", "schema": TOOL["function"]["parameters"]}}
NAMED = {"type": "function", "function": {"name": "look_up"}}
TOOL_FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=LIMIT_S)


@pytest.fixture
def split(float32_cluster: Cluster) -> Iterator[openai.OpenAI]:
    with client_of(float32_cluster.proxy_url) as client:
        yield client


@pytest.fixture
def unsplit(float32_cluster: Cluster) -> Iterator[openai.OpenAI]:
    with client_of(float32_cluster.engine("aggregated").url) as client:
        yield client


@pytest.fixture
def tool_cluster(use_cluster) -> Cluster:
    """Engines with a tool parser, without which vLLM refuses every `tool_choice` but "none"."""
    engines = split_engines(aggregated=1, dtype="float32")
    return use_cluster(ClusterSpec(engines=tuple(replace(each, extra_args=TOOL_FLAGS) for each in engines)))


def no_white_space() -> dict[str, int]:
    """Keeps a model of random weights from filling its answer with the white space that JSON allows between tokens."""
    tokenizer = json.loads((make_model("tiny") / "tokenizer.json").read_text())
    return {str(number): -100 for token, number in tokenizer["model"]["vocab"].items() if not token.strip("ĠĊĉč")}


def asked(seed: int, tokens: int = 16, **fields: Any) -> dict[str, Any]:
    """A greedy chat request of exactly `tokens` tokens, unless `fields` say otherwise."""
    messages = [{"role": "system", "content": prompt_of(60, 50_000 + seed)}, {"role": "user", "content": f"go {seed}"}]
    body = {"model": "tiny", "messages": messages, "max_tokens": tokens, "temperature": 0}
    return {**body, "extra_body": {"ignore_eos": True}, **fields}


def choices_of(answer: Any) -> list[dict[str, Any]]:
    """Choices of an answer without what is drawn anew for every tool call."""
    choices = [choice.model_dump() for choice in answer.choices]
    for choice in choices:
        for tool_call in (choice.get("message") or {}).get("tool_calls") or ():
            tool_call.pop("id")
    return choices


def counts(usage: Any) -> tuple[int, int, int]:
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


@pytest.mark.vllm_smoke
def test_a_chat_of_two_turns_is_the_unsplit_engines(split: openai.OpenAI, unsplit: openai.OpenAI) -> None:
    body = asked(1)
    for decision in (PD, DIRECT):
        raw = split.chat.completions.with_raw_response.create(**body)
        answer, expected = raw.parse(), unsplit.chat.completions.create(**body)
        assert raw.headers["x-ppd-decision"] == decision
        assert choices_of(answer) == choices_of(expected)
        assert counts(answer.usage) == counts(expected.usage)
        assert answer.id.startswith("chatcmpl-")
        assert "kv_transfer_params" not in raw.http_response.text
        message = answer.choices[0].message.model_dump(exclude_none=True)
        body["messages"] += [message, {"role": "user", "content": "more"}]


@pytest.mark.parametrize("wants_usage", [True, False], ids=["usage", "no usage"])
def test_a_streamed_chat_of_two_turns_is_the_unsplit_engines(
    split: openai.OpenAI, unsplit: openai.OpenAI, wants_usage: bool
) -> None:
    body = asked(2 + wants_usage)
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    for decision in (PD, DIRECT):
        expected = unsplit.chat.completions.create(**body)
        raw = split.chat.completions.with_raw_response.create(**body, stream=True, **options)
        assert raw.headers["x-ppd-decision"] == decision
        chunks = list(raw.parse())
        said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert said == expected.choices[0].message.content
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
        assert reasons == [None] * (len(reasons) - 1) + ["length"]
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[0].id.startswith("chatcmpl-")
        check_usage(chunks, expected.usage if wants_usage else None)
        body["messages"] += [{"role": "assistant", "content": said}, {"role": "user", "content": "more"}]


def check_usage(chunks: list[Any], expected: Any) -> None:
    """One chunk of nothing but usage at the end where it was asked for, and no trace of it where it was not."""
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert all(chunk.choices for chunk in chunks[:-1])
    assert "kv_transfer_params" not in "".join(chunk.model_dump_json() for chunk in chunks)
    if expected is None:
        assert chunks[-1].usage is None
        assert chunks[-1].choices
    else:
        assert chunks[-1].choices == []
        assert counts(chunks[-1].usage) == counts(expected)


@pytest.mark.parametrize("wants_usage", [True, False], ids=["usage", "no usage"])
def test_completions_are_the_unsplit_engines(split: openai.OpenAI, unsplit: openai.OpenAI, wants_usage: bool) -> None:
    body = {"model": "tiny", "max_tokens": 16, "temperature": 0, "extra_body": {"ignore_eos": True}}
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    prompt = prompt_of(80, 60_000 + wants_usage)
    expected = unsplit.completions.create(prompt=prompt, **body)
    raw = split.completions.with_raw_response.create(prompt=prompt, stream=True, **options, **body)
    chunks = list(raw.parse())
    assert raw.headers["x-ppd-decision"] == PD
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == expected.choices[0].text
    assert chunks[0].id.startswith("cmpl-")
    check_usage(chunks, expected.usage if wants_usage else None)
    prompt += expected.choices[0].text + " more"
    whole = split.completions.with_raw_response.create(prompt=prompt, **body)
    expected = unsplit.completions.create(prompt=prompt, **body)
    assert whole.headers["x-ppd-decision"] == DIRECT
    assert choices_of(whole.parse()) == choices_of(expected)
    assert counts(whole.parse().usage) == counts(expected.usage)


def test_tools_that_may_not_be_called_reach_both_engines(split: openai.OpenAI, unsplit: openai.OpenAI) -> None:
    body = asked(4, tools=[TOOL], tool_choice="none")
    without = split.chat.completions.create(**asked(4))
    raw = split.chat.completions.with_raw_response.create(**body)
    answer, expected = raw.parse(), unsplit.chat.completions.create(**body)
    assert raw.headers["x-ppd-decision"] == PD
    assert choices_of(answer) == choices_of(expected)
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens > without.usage.prompt_tokens


@pytest.mark.parametrize("tool_choice", ["auto", "required", NAMED], ids=["auto", "required", "named"])
def test_tools_without_a_tool_parser_get_the_engines_own_refusal(
    split: openai.OpenAI, unsplit: openai.OpenAI, tool_choice: Any
) -> None:
    bodies = []
    for client in (split, unsplit):
        with pytest.raises(openai.BadRequestError, match="tool-call-parser") as refused:
            client.chat.completions.create(**asked(5, tools=[TOOL], tool_choice=tool_choice))
        bodies.append(refused.value.body)
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_a_prompt_that_is_too_long_is_a_bad_request(split: openai.OpenAI, unsplit: openai.OpenAI, stream: bool) -> None:
    body = asked(6, stream=stream)
    body["messages"][0]["content"] = prompt_of(6000, 6)
    bodies = []
    for client in (split, unsplit):
        with pytest.raises(openai.BadRequestError, match="4096") as refused:
            client.chat.completions.create(**body)
        assert refused.value.status_code == 400
        bodies.append(refused.value.body)
    assert bodies[0] == bodies[1]


def test_other_errors_are_the_clients_exceptions(split: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        split.chat.completions.create(**asked(7, model="nobody"))
    with pytest.raises(openai.BadRequestError, match="top_p"):
        split.chat.completions.create(**asked(7, top_p=9))


def test_models_are_listed(split: openai.OpenAI) -> None:
    assert [model.id for model in split.models.list()] == ["tiny"]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}, id="required"),
        pytest.param({"tools": [TOOL], "tool_choice": NAMED}, id="named"),
        pytest.param({"tools": [TOOL]}, id="auto"),
        pytest.param({"response_format": SCHEMA}, id="json_schema"),
        pytest.param({"response_format": {"type": "json_object"}}, id="json_object"),
    ],
)
@pytest.mark.parametrize("tokens", [1, 60], ids=["cut off", "whole"])
def test_tool_calls_and_formats_are_the_unsplit_engines(tool_cluster: Cluster, fields: Any, tokens: int) -> None:
    body = {**asked(8, tokens), "extra_body": {}, "logit_bias": no_white_space(), **fields}
    with client_of(tool_cluster.proxy_url) as split, client_of(tool_cluster.engine("aggregated").url) as unsplit:
        raw = split.chat.completions.with_raw_response.create(**body)
        expected = unsplit.chat.completions.create(**body)
    assert raw.headers["x-ppd-decision"].startswith("pd;")
    assert raw.headers["x-ppd-decision"].endswith(";turn=1")
    assert choices_of(raw.parse()) == choices_of(expected)
    if tokens > 1 and fields.get("tool_choice"):
        (tool_call,) = expected.choices[0].message.tool_calls
        assert json.loads(tool_call.function.arguments)["word"] in ("river", "mountain")


@pytest.mark.parametrize("tool_choice", ["required", NAMED], ids=["required", "named"])
def test_a_streamed_tool_call_and_its_result_are_two_turns(tool_cluster: Cluster, tool_choice: Any) -> None:
    tools = {"tools": [TOOL], "tool_choice": tool_choice, "parallel_tool_calls": False}
    body = {**asked(9 + (tool_choice == NAMED), 60), "extra_body": {}, "logit_bias": no_white_space(), **tools}
    with client_of(tool_cluster.proxy_url) as split, client_of(tool_cluster.engine("aggregated").url) as unsplit:
        expected = unsplit.chat.completions.create(**body).choices[0].message.tool_calls[0].function
        chunks = list(split.chat.completions.create(**body, stream=True))
        deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
        parts = [part for delta in deltas for part in delta.tool_calls or ()]
        arguments = "".join(part.function.arguments or "" for part in parts)
        assert parts[0].function.name == expected.name == "look_up"
        assert json.loads(arguments) == json.loads(expected.arguments), (
            "vLLM writes whole calls anew, not streamed ones"
        )
        called = {"name": "look_up", "arguments": arguments}
        body["messages"] += [
            {"role": "assistant", "tool_calls": [{"id": parts[0].id, "type": "function", "function": called}]},
            {"role": "tool", "tool_call_id": parts[0].id, "content": "A large stream."},
        ]
        raw = split.chat.completions.with_raw_response.create(**body)
        assert raw.headers["x-ppd-decision"] == DIRECT
        assert choices_of(raw.parse()) == choices_of(unsplit.chat.completions.create(**body))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"tools": [TOOL], "tool_choice": "required"}, id="required"),
        pytest.param({"tools": [TOOL], "tool_choice": NAMED}, id="named"),
        pytest.param({"response_format": SCHEMA}, id="json_schema"),
        pytest.param({"response_format": {"type": "json_object"}}, id="json_object"),
    ],
)
def test_a_prefill_engine_answers_one_token_of_a_tool_call(tool_cluster: Cluster, fields: Any) -> None:
    """What the proxy asks of a prefill engine: the cut-off call must come back as 200 with its handoff."""
    params = {"do_remote_decode": True, "do_remote_prefill": False}
    unset = dict.fromkeys(("remote_engine_id", "remote_block_ids", "remote_host", "remote_port"))
    body = {key: value for key, value in asked(11, 1).items() if key != "extra_body"}
    url = f"{tool_cluster.engine('prefill').url}/v1/chat/completions"
    answer = call(url, {**body, **fields, "kv_transfer_params": {**params, **unset}})
    assert answer.status == 200, answer
    assert answer.body["kv_transfer_params"]["remote_block_ids"]
