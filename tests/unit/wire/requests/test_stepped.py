"""Large bodies are read in steps as small ones are in one go."""

import json

import pytest
from tests.support.steps import BIG, MESSAGES, PROMPTS, run, text_of

from ppd_wire.errors import BadRequest
from ppd_wire.requests import generation as chat
from ppd_wire.requests import opaque, stepped


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES)
def test_a_large_chat_is_what_it_is_in_one_go(messages):
    body = json.dumps({"model": "m", "n": 2, "messages": messages}).encode()
    whole = chat.parse("chat", body)
    request, count = run(stepped.parse("chat", body, frozenset()))
    assert count > 3
    assert text_of(request.messages) == whole.messages
    assert (request.fields.keys(), request.is_multi_sequence) == (whole.fields.keys(), True)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_large_prompt_is_what_it_is_in_one_go(prompt):
    body = json.dumps({"prompt": prompt}).encode()
    whole = chat.parse("completion", body)
    request, count = run(stepped.parse("completion", body, frozenset()))
    assert count > 0
    assert text_of(request.prompt) == whole.prompt
    assert request.is_multi_sequence is whole.is_multi_sequence is False


@pytest.mark.parametrize("prompt", [["a"] * 100_000, [[1]] * 100_000, ["a", [1] * 100_000]])
def test_several_large_prompts_are_several(prompt):
    request, _ = run(stepped.parse("completion", json.dumps({"prompt": prompt}).encode(), frozenset()))
    assert request.is_multi_sequence


WRONG = [
    ("chat", {"messages": BIG}),
    ("chat", {"messages": {"a": BIG}}),
    ("chat", {"messages": [BIG]}),
    ("chat", {"messages": [{"role": "user"}, 1], "x": BIG}),
    ("completion", {"prompt": {"a": BIG}}),
    ("completion", {"prompt": [1.5] * 100_000}),
    ("completion", {"prompt": [None] * 100_000}),
]


@pytest.mark.parametrize(("kind", "fields"), WRONG)
def test_a_large_body_that_is_wrong_is_refused_naming_the_field(kind, fields):
    body = json.dumps(fields).encode()
    with pytest.raises(BadRequest) as whole:
        chat.parse(kind, body)
    with pytest.raises(BadRequest) as steps:
        run(stepped.parse(kind, body, frozenset()))
    assert (steps.value.status, steps.value.param) == (400, whole.value.param)


def test_a_small_body_takes_no_step():
    assert run(stepped.parse("chat", b'{"messages":[]}', frozenset()))[1] == 0
    assert run(stepped.parse_opaque(b"{}", frozenset()))[1] == 0


def test_a_large_body_that_is_not_interpreted_loses_what_is_stripped():
    body = json.dumps({"input": BIG, "stream": True, "x": 1}).encode()
    request, count = run(stepped.parse_opaque(body, frozenset({"x"})))
    assert count > 0
    assert request == opaque.parse_opaque(body, frozenset({"x"}))
    assert run(stepped.parse_opaque(body, frozenset()))[0].body is body
