"""What a simulated engine takes and what it refuses, as vLLM does."""

import pytest

from ppd_sim.model.body import Rejected, Served, error_json, read
from ppd_sim.model.tokens import VOCAB_SIZE, Tokenizer

LIMITS = Served(model_name="m", adapters=("tuned",), max_model_len=100, default_max_tokens=None, tokens_per_image=16)
TOKENIZER = Tokenizer()
HI = [{"role": "user", "content": "hi"}]


def chat(**fields):
    return read("chat", {"messages": HI, **fields}, TOKENIZER, LIMITS)


def completion(**fields):
    return read("completions", {"prompt": "hi", **fields}, TOKENIZER, LIMITS)


def test_what_is_not_said_is_vllms_default():
    request = completion()
    assert (request.prompts, request.prompt_text, request.max_tokens) == ([TOKENIZER.encode("hi")], "hi", [16])
    assert (request.n, request.temperature, request.top_p, request.seed) == (1, 1.0, 1.0, None)
    assert (request.model_name, request.adapter, request.cache_salt) == ("m", None, "")
    assert (request.is_stream, request.has_usage, request.has_echo, request.logprobs) == (False, False, False, None)
    assert chat().max_tokens == [100 - len(chat().prompts[0])]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]]), (["a", [3]], [TOKENIZER.encode("a"), [3]]),
    ],
)  # fmt: skip
def test_a_prompt_is_one_sequence_or_several(prompt, prompts):
    request = completion(prompt=prompt, n=2)
    assert (request.prompts, request.sequences) == (prompts, 2 * len(prompts))


def test_an_answer_is_cut_to_the_room_that_the_prompt_leaves():
    assert completion(prompt=[1] * 90, max_tokens=50).max_tokens == [10]
    assert chat(max_completion_tokens=3, max_tokens=9).max_tokens == [3]
    assert completion(max_tokens=0, echo=True).max_tokens == [0]


def test_an_adapter_is_a_model_of_its_own():
    assert (chat(model="tuned").adapter, chat(model="m").adapter, chat(model="").model_name) == ("tuned", None, "m")


def test_streams_and_logprobs_are_asked_in_each_endpoints_way():
    request = chat(stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=3)
    assert (request.is_stream, request.has_usage, request.has_continuous_usage, request.logprobs) == (
        True, True, False, 3,
    )  # fmt: skip
    assert (chat(logprobs=True).logprobs, chat().logprobs, completion(logprobs=2).logprobs) == (0, None, 2)


@pytest.mark.parametrize(
    ("choice", "name"), [("auto", None), ("required", "look"), ({"function": {"name": "see"}}, "see")]
)
def test_a_tool_that_must_be_called_is_known(choice, name):
    assert chat(tool_choice=choice, tools=[{"function": {"name": "look"}}]).tool_name == name


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": True}, "body.n", "a valid integer"),
        ({"n": 0}, "n", "must be at least 1"),
        ({"n": 2, "temperature": 0}, None, "n must be 1 when using greedy sampling"),
        ({"temperature": 3}, "temperature", r"must be in \[0, 2\]"),
        ({"temperature": "hot"}, "body.temperature", "a valid number"),
        ({"stream": 1}, "body.stream", "a valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only be defined when `stream=True`"),
        ({"stop": [1]}, "body.stop", "a valid string"),
        ({"stop": ""}, "stop", "cannot contain an empty string"),
        ({"max_tokens": 101}, "max_tokens", "cannot be greater than max_model_len=100"),
        ({"max_tokens": 5, "min_tokens": 6}, None, "min_tokens must be less than or equal to max_tokens=5"),
        ({"prompt": [1] * 100}, "input_tokens", "maximum context length is 100 tokens"),
        ({"prompt": None}, "prompt", "must be provided and non-empty"),
        ({"prompt": ["a", []]}, "prompt", "must be provided and non-empty"),
        ({"prompt": 5}, "body.prompt", "a valid string"),
        ({"prompt": [1, "a"]}, "body.prompt", "a valid list"),
        ({"prompt": [VOCAB_SIZE]}, "prompt", "out of vocabulary"),
        ({"logprobs": 21}, "logprobs", "greater than max allowed: 20"),
        ({"prompt_logprobs": 0, "stream": True}, "prompt_logprobs", "not available when"),
        ({"cache_salt": ""}, "cache_salt", "non-empty string"),
        ({"kv_transfer_params": 5}, "body.kv_transfer_params", "a valid dictionary"),
    ],
)
def test_what_vllm_refuses_is_refused_with_its_words(fields, param, words):
    with pytest.raises(Rejected, match=words) as refused:
        completion(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert refused.value.to_json()["error"]["message"] == refused.value.message


def test_top_logprobs_need_logprobs():
    with pytest.raises(Rejected, match="`logprobs` must be set to true"):
        chat(top_logprobs=2)


def test_an_unknown_model_is_not_found():
    with pytest.raises(Rejected) as refused:
        chat(model="other")
    told = error_json(refused.value.message, 404, "NotFoundError", "model")
    assert (refused.value.status, refused.value.to_json()) == (404, told)


def test_messages_that_no_template_renders_are_refused():
    with pytest.raises(Rejected) as refused:
        chat(messages="hi")
    assert refused.value.param == "messages"
