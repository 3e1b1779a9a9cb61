"""Equal histories have equal digests, whatever the spelling; different ones never do."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_core.conversation.identity import (
    BLOCK_UNITS,
    SCOPE_FIELDS,
    RememberedAnswer,
    answer_steps,
    chat_steps,
    last_assistant,
    raw_end,
    raw_steps,
    scope,
)

SCOPE = scope(api_key="key", fields={})
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1, "b": [2]}'}}


def fields(**values):
    return {name: msgspec.Raw(value.encode()) for name, value in values.items()}


def step(message):
    return chat_steps(SCOPE, [message])[0]


def assistant(**values):
    return {"role": "assistant", **values}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"api_key": "another"}, id="key"),
        pytest.param({"fields": fields(model='"n"')}, id="model"),
        pytest.param({"explicit_id": "x"}, id="explicit id"),
        *(pytest.param({"fields": fields(model='"m"', **{name: '"value"'})}, id=name) for name in SCOPE_FIELDS),
    ],
)
def test_whatever_changes_the_prompt_from_its_first_token_separates_scopes(other):
    base = {"api_key": "key", "fields": fields(model='"m"')}
    assert scope(**{**base, **other}) != scope(**base)


def test_the_same_value_in_another_field_is_another_scope():
    made = {scope(api_key="key", fields=fields(**{name: '"value"'})) for name in SCOPE_FIELDS}
    made.add(scope(api_key="key", fields={}, explicit_id='"value"'))
    assert len(made) == len(SCOPE_FIELDS) + 1


def test_the_border_between_key_and_model_counts():
    assert scope(api_key='a"m"', fields={}) != scope(api_key="a", fields=fields(model='"m"'))


def test_key_order_and_white_space_do_not_change_a_scope():
    one = fields(tools='[{"a":1,"b":{"c":2,"d":3}}]', chat_template_kwargs='{"x":true,"y":null}')
    two = fields(chat_template_kwargs='{ "y": null,\n"x": true }', tools='[ {"b":{"d":3,"c":2}, "a":1} ]')
    assert scope(api_key="key", fields=one) == scope(api_key="key", fields=two)


@pytest.mark.parametrize("empty", ["null", "[]", "{ }", '""'])
def test_an_empty_field_equals_an_absent_one(empty):
    assert scope(api_key="key", fields=fields(tools=empty)) == scope(api_key="key", fields={})


def test_a_field_that_is_no_part_of_the_scope_does_not_change_it():
    assert scope(api_key="key", fields=fields(temperature="0.3", stream="true")) == SCOPE


def test_a_model_written_with_escapes_is_the_same_model():
    assert scope(api_key="k", fields=fields(model='"a\\u002fb"')) == scope(api_key="k", fields=fields(model='"a/b"'))


@pytest.mark.parametrize("raw", [b'"\xff"', b'{"a": "\xfe"}', b"[" * 5000 + b"]" * 5000])
def test_json_that_does_not_decode_still_has_a_scope(raw):
    assert scope(api_key="key", fields={"tools": msgspec.Raw(raw)}) != SCOPE


def test_each_step_depends_on_everything_before_it():
    one = chat_steps(SCOPE, [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    two = chat_steps(SCOPE, [{"role": "user", "content": "x"}, {"role": "user", "content": "b"}])
    assert one[1] != two[1]
    assert one != chat_steps(scope(api_key="other", fields={}), [{"role": "user", "content": "a"}])


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param({"content": None}, {}, id="content none and missing"),
        pytest.param({"content": ""}, {"content": None}, id="content empty and none"),
        pytest.param({"content": []}, {"content": ""}, id="content without parts"),
        pytest.param({"content": "hi"}, {"content": [{"type": "text", "text": "hi"}]}, id="one text part"),
        pytest.param({"content": "hi"}, {"content": ["hi"]}, id="one string part"),
        pytest.param(
            {"content": "hi"},
            {"content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
            id="cache marks",
        ),
        pytest.param({"content": "hi"}, {"content": "hi", "name": None, "x": "", "y": [], "z": {}}, id="empty fields"),
        pytest.param(
            {"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
            {"content": [{"image_url": "data:x", "type": "image_url"}]},
            id="image by its url",
        ),
        pytest.param(
            {"content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]},
            {"content": [{"input_audio": {"format": "wav", "data": "x"}, "type": "input_audio"}]},
            id="key order of a part",
        ),
        pytest.param(
            {"content": "hi", "meta": {"a": 1, "b": 2}}, {"meta": {"b": 2, "a": 1}, "content": "hi"}, id="key order"
        ),
    ],
)
def test_spellings_of_the_same_message_are_equal(one, two):
    assert step({"role": "user", **one}) == step({"role": "user", **two})


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param({"content": "a"}, {"content": "b"}, id="text"),
        pytest.param({"content": "ab"}, {"content": ["a", "b"]}, id="parts are not merged"),
        pytest.param({"content": ["ab", "c"]}, {"content": ["a", "bc"]}, id="borders between parts"),
        pytest.param(
            {"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
            {"content": [{"type": "image_url", "image_url": {"url": "data:y"}}]},
            id="images",
        ),
        pytest.param(
            {"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
            {"content": "data:x"},
            id="image, text",
        ),
        pytest.param({"content": "a", "name": "n"}, {"content": "a"}, id="name"),
        pytest.param({"content": "a", "tool_call_id": "1"}, {"content": "a", "tool_call_id": "2"}, id="tool call id"),
        pytest.param({"content": "a", "name": "n"}, {"content": "a", "nome": "n"}, id="field name"),
        pytest.param({"content": "a", "x": 0}, {"content": "a", "x": False}, id="zero and false"),
        pytest.param({"content": "a", "x": "[1]"}, {"content": "a", "x": [1]}, id="json and text"),
        pytest.param({"content": "a", "x": 0}, {"content": "a"}, id="zero is not empty"),
    ],
)
def test_different_messages_differ(one, two):
    assert step({"role": "user", **one}) != step({"role": "user", **two})


def test_the_role_counts_and_may_be_unknown_missing_or_malformed():
    roles = ["user", "system", "critic", "", 1, ["user"]]
    steps = {step({"role": role, "content": "a"}) for role in roles}
    assert len(steps) == len(roles)
    assert step({"content": "a"}) == step({"role": None, "content": "a"})


def test_lone_surrogates_are_hashed():
    assert step({"role": "user", "content": "\ud800"}) != step({"role": "user", "content": "\ud801"})


def test_fields_that_only_answers_carry_do_not_count():
    extra = {"refusal": None, "annotations": [{"type": "x"}], "audio": {"id": "1"}, "function_call": None, "index": 0}
    assert step(assistant(content="a", tool_calls=[], **extra)) == step(assistant(content="a"))


def test_reasoning_counts_under_either_name():
    plain = step(assistant(content="a"))
    assert step(assistant(content="a", reasoning="r")) == step(assistant(content="a", reasoning_content="r")) != plain


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param('{"b":[2],"a":1}', id="key order"),
        pytest.param({"b": [2], "a": 1}, id="object"),
    ],
)
def test_tool_calls_are_equal_however_their_arguments_are_written(arguments):
    call = {"function": {"arguments": arguments, "name": "f"}, "index": 0, "id": "c1", "type": "function"}
    assert step(assistant(tool_calls=[call], content=None)) == step(assistant(tool_calls=[TOOL_CALL], content=""))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param({**TOOL_CALL, "id": "c2"}, id="id"),
        pytest.param({**TOOL_CALL, "function": {"name": "g", "arguments": '{"a": 1, "b": [2]}'}}, id="name"),
        pytest.param({**TOOL_CALL, "function": {"name": "f", "arguments": '{"a": 2, "b": [2]}'}}, id="arguments"),
        pytest.param({**TOOL_CALL, "function": {"name": "f", "arguments": '{"a": 1, "b": [2'}}, id="broken json"),
        pytest.param({"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}, id="custom tool"),
        pytest.param("not a call", id="malformed"),
    ],
)
def test_different_tool_calls_differ(call):
    assert step(assistant(tool_calls=[call])) != step(assistant(tool_calls=[TOOL_CALL]))


def test_missing_arguments_equal_an_empty_object():
    calls = [{"id": "c1", "function": {"name": "f", "arguments": value}} for value in (None, "", "{}", {})]
    assert len({step(assistant(tool_calls=[call])) for call in calls}) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(RememberedAnswer(content="a"), id="text"),
        pytest.param(RememberedAnswer(content="a", reasoning="r"), id="reasoning"),
        pytest.param(RememberedAnswer(tool_calls=[TOOL_CALL]), id="tool call"),
        pytest.param(RememberedAnswer(content="<think>r</think>a", tool_calls=[TOOL_CALL]), id="all"),
    ],
)
def test_an_answer_sent_back_as_it_was_has_the_full_step(answer):
    message = assistant(content=answer.content, reasoning=answer.reasoning, tool_calls=list(answer.tool_calls))
    assert answer_steps(SCOPE, answer).full == step(message)


@pytest.mark.parametrize(
    ("answer", "sent_back"),
    [
        pytest.param(RememberedAnswer(content="\n\na ", reasoning="r"), ["\n\na ", "a ", "a"], id="field"),
        pytest.param(RememberedAnswer(content="<think>\nr\n</think>\n\na"), ["\n\na", "a"], id="think block"),
        pytest.param(RememberedAnswer(content="r\n</think>\n\na"), ["\n\na", "a"], id="block opened by the template"),
        pytest.param(RememberedAnswer(content="a"), [], id="no reasoning"),
        pytest.param(RememberedAnswer(content="Use <think> and </think>."), [], id="tags in the text"),
    ],
)
def test_answers_with_reasoning_may_come_back_without_it(answer, sent_back):
    stripped = answer_steps(SCOPE, answer).stripped
    assert list(stripped) == [step(assistant(content=content)) for content in sent_back]


def test_the_last_assistant_message_is_found():
    assert last_assistant([]) == -1
    assert last_assistant([{"role": "user"}]) == -1
    assert last_assistant([assistant(), {"role": "user"}, assistant(), {"role": "tool"}]) == 2


@given(st.text(max_size=3000), st.text(max_size=3000))
def test_the_end_of_an_answer_is_the_end_of_the_prompt_it_becomes(prompt, answer):
    assert raw_end(raw_steps(SCOPE, prompt), answer) == raw_end(raw_steps(SCOPE, prompt + answer))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=200), st.integers(0, 3000))
def test_token_ids_end_where_their_count_says(ids, padding):
    ids = ids + [7] * padding
    end = raw_end(raw_steps(SCOPE, ids[:50]), ids[50:])
    assert end == raw_end(raw_steps(SCOPE, ids))
    assert end.fine_count * 64 + end.tail_units == len(ids) % BLOCK_UNITS


def test_text_and_token_ids_never_share_a_step():
    assert raw_end(raw_steps(SCOPE, "abcd")).exact != raw_end(raw_steps(SCOPE, [0x64636261])).exact


def test_a_long_prompt_costs_a_few_hundred_steps():
    assert len(raw_steps(SCOPE, "x" * 100_000).blocks) < 200


@pytest.mark.parametrize("ids", [[-1], [2**32], [1.5], ["1"]])
def test_token_ids_that_are_none_are_named(ids):
    with pytest.raises(ValueError, match="prompt: token ids must be integers from 0 to 4294967295"):
        raw_steps(SCOPE, ids)


def test_an_answer_of_the_other_kind_is_refused():
    with pytest.raises(ValueError, match="answer: list given, but the prompt is text"):
        raw_end(raw_steps(SCOPE, "a"), [1])


def test_arguments_that_would_decode_to_millions_of_values_are_compared_as_they_are_written():
    written = "[" + "[]," * 400_000 + "[]]"
    call = {"id": "c", "type": "function"}
    first, second = (
        step(assistant(content=None, tool_calls=[{**call, "function": {"name": "f", "arguments": arguments}}]))
        for arguments in (written, written.replace("[],", "[], "))
    )
    assert first != second
