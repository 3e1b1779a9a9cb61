"""Request bodies: what decides how they are served."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_wire.errors import BadRequest
from ppd_wire.requests.generation import _PLAIN_FIELDS, parse


def completion(**fields):
    return parse("completion", json.dumps({"prompt": "hi", **fields}).encode())


def chat(**fields):
    return parse("chat", json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode())


# One sequence or several


@pytest.mark.parametrize(
    ("prompt", "sequence"),
    [
        ("one", "one"), ("", ""), (["one"], "one"), ([1, 2], [1, 2]), ([[1, 2]], [1, 2]), ([7], [7]), ([[7]], [7]),
        ([], []),
    ],
)  # fmt: skip
def test_one_sequence_in_any_form_is_one_sequence(prompt, sequence):
    request = completion(prompt=prompt)
    assert request.prompt == sequence
    assert not request.is_multi_sequence


@pytest.mark.parametrize("prompt", [["one", "two"], [[1], [2]], [[1], "two"], ["one", 2], [1, "two"], [1, [2]]])
def test_several_prompts_are_several_sequences(prompt):
    assert completion(prompt=prompt).is_multi_sequence


@pytest.mark.parametrize(
    "fields", [{"n": 2}, {"best_of": 2}, {"n": 1, "best_of": 3}, {"use_beam_search": True}, {"n": 0}, {"n": "2"}]
)
def test_p18_several_choices_are_several_sequences(fields):
    assert completion(**fields).is_multi_sequence
    assert chat(**fields).is_multi_sequence


@pytest.mark.parametrize("fields", [{"n": 1}, {"n": None, "best_of": None}, {"best_of": 1}, {"use_beam_search": False}])
def test_one_choice_is_one_sequence(fields):
    assert not completion(**fields).is_multi_sequence


@pytest.mark.parametrize("prompt", [None, "", "text", [1, 2]])
def test_embedded_prompts_never_carry_a_handoff(prompt):
    """vLLM serves `prompt_embeds` beside `prompt`, each as a sequence of its own."""
    assert completion(prompt=prompt, prompt_embeds="AAAA").is_multi_sequence


def test_absent_embeddings_change_nothing():
    assert not completion(prompt_embeds=None).is_multi_sequence


# Flags


def test_flags_are_read():
    request = chat(stream=True, return_token_ids=True, continue_final_message=True)
    assert request.is_stream
    assert request.wants_token_ids
    assert request.continues_answer
    assert completion(echo=True).echoes_prompt
    assert not chat(echo=True).echoes_prompt


@pytest.mark.parametrize("value", [True, 1, "true", "True", "1", "yes", "on"])
def test_engines_take_more_than_true_for_true(value):
    """vLLM's fields are read by pydantic, which takes these for true. A stream taken for a whole answer would hide an
    error event behind a 200; beam search taken for one sequence would hand KV over that the engine cannot use."""
    assert completion(stream=value).is_stream
    assert completion(use_beam_search=value).is_multi_sequence
    assert completion(echo=value, logprobs=1).wants_prompt_logprobs


@pytest.mark.parametrize("value", [False, 0, None, "false", "off"])
def test_false_in_any_spelling_is_false(value):
    request = completion(stream=value, use_beam_search=value, echo=value, logprobs=1)
    assert not request.is_stream
    assert not request.is_multi_sequence
    assert not request.wants_prompt_logprobs


@pytest.mark.parametrize("value", [False, "false", 0, None])
def test_a_client_that_declines_usage_in_any_spelling_did_not_ask(value):
    assert not completion(stream=True, stream_options={"include_usage": value}).wants_usage


def test_p19_prompt_logprobs_are_noticed():
    assert completion(prompt_logprobs=0).wants_prompt_logprobs
    assert completion(prompt_logprobs=5).wants_prompt_logprobs
    assert completion(logprobs=0, echo=True).wants_prompt_logprobs
    assert not completion(logprobs=3).wants_prompt_logprobs
    assert not completion(echo=True).wants_prompt_logprobs
    assert not completion(echo=True, logprobs=None).wants_prompt_logprobs


def test_p19_prompt_logprobs_of_null_are_not_asked_for():
    assert not completion(prompt_logprobs=None).wants_prompt_logprobs


def test_white_space_around_values_does_not_matter():
    raw = b'{ "prompt" : "hi" ,\t"n" :\n1 , "stream" : true , "echo" : true , "logprobs" : null }'
    request = parse("completion", raw)
    assert request.is_stream
    assert not request.is_multi_sequence
    assert not request.wants_prompt_logprobs


def test_arguments_for_the_engine_are_short():
    body = json.dumps({"messages": [], "vllm_xargs": {"x": "y" * 200_000}}).encode()
    with pytest.raises(BadRequest) as refused:
        parse("chat", body)
    assert (refused.value.status, refused.value.param) == (400, "vllm_xargs")
    assert "131072 bytes" in refused.value.message


VALUES = st.sampled_from([None, True, "true", 1, 0, "x", [], [1], {}, {"a": 1}, 2.5])


@given(st.dictionaries(st.sampled_from(sorted(_PLAIN_FIELDS - {"messages"})), VALUES))
def test_fields_that_decide_nothing_need_no_look(fields):
    """Any other field beside them brings the closer look, which must come to the same."""
    body = {**fields, "messages": []}
    plain, looked_at = (parse("chat", json.dumps(each).encode()) for each in (body, {**body, "other": 1}))
    facts = [name for name in plain.__struct_fields__ if name not in ("body", "fields")]
    assert [getattr(plain, name) for name in facts] == [getattr(looked_at, name) for name in facts]
