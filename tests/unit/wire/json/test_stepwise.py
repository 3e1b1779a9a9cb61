"""Large JSON texts are read in steps as in one go, wherever the pieces end."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_core.conversation import identity, stepped
from ppd_wire.errors import BadRequest
from ppd_wire.json import stepwise
from ppd_wire.json.stepwise import LARGE_BYTES
from ppd_wire.requests import generation as chat
from ppd_wire.requests import stepped as requests

SCOPE = b"s" * 16
BIG = "x" * LARGE_BYTES


def run(steps):
    """What the steps come to, and how many there were."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def text_of(part):
    """Long texts as `str` again."""
    if isinstance(part, bytes):
        return part.decode("utf-8", "surrogatepass")
    if isinstance(part, dict):
        return {name: text_of(value) for name, value in part.items()}
    return [text_of(value) for value in part] if isinstance(part, list) else part


UNITS = ["a", "é", "中", "😀", "\n", '"', "\\", "/", "\ud83d"]


@given(st.lists(st.sampled_from(UNITS), max_size=40).map("".join), st.booleans(), st.integers(24, 60))
def test_a_long_string_is_cut_nowhere_that_changes_it(text, ascii_only, piece_bytes):
    try:
        literal = json.dumps(text, ensure_ascii=ascii_only).encode()
        expected = msgspec.json.decode(literal).encode()
    except (UnicodeEncodeError, msgspec.DecodeError):
        return  # half a pair of escapes
    assert run(stepwise.utf8(literal, piece_bytes))[0] == expected


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.just(BIG) | st.just("é\n" + BIG),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)


@given(values)
def test_a_large_value_is_the_same_in_steps(value):
    found, _ = run(stepwise.value(msgspec.Raw(json.dumps(value).encode())))
    assert text_of(found) == value


@pytest.mark.parametrize(
    "text", [b"[" + b"1," * 200_000 + b"]", b"[" + b"1," * 200_000 + b"x]", b'["' + b"\xff" * 200_000 + b'"]']
)
def test_what_is_no_json_is_refused_in_steps_too(text):
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        run(stepwise.value(msgspec.Raw(text)))


MESSAGES = {
    "one text": [{"role": "user", "content": BIG * 40}],
    "escapes": [{"role": "user", "content": "\n\"\\é😀" * 400_000}],
    "many": [{"role": role, "content": f"{at} hello"} for at in range(5000) for role in ("user", "assistant")],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b", {"type": "x", "y": [1]}] * 4000}],
    "images": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": BIG}}]},
        {"role": "user", "content": [{"type": "text", "text": BIG}]},
    ],
    "tools": [
        {"role": "assistant", "content": None, "reasoning": BIG, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"b": 1,  "a": 2}'}}
        ]},
        {"role": "tool", "tool_call_id": "c", "content": BIG, "name": "f"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES)
def test_a_large_chat_has_the_history_that_it_has_in_one_go(messages):
    body = json.dumps({"model": "m", "n": 2, "messages": messages}).encode()
    whole = chat.parse("chat", body)
    found, count = run(requests.parse("chat", body, frozenset()))
    assert count > 3
    assert text_of(found.messages) == whole.messages
    assert (found.fields.keys(), found.is_multi_sequence) == (whole.fields.keys(), True)
    assert run(stepped.chat_steps(SCOPE, found))[0] == identity.chat_steps(SCOPE, whole.messages)


PROMPTS = {
    "text": "héllo\n" * 300_000,
    "ids": [*range(300_000)],
    "one list of ids": [[*range(300_000)]],
    "one text": ["hello" * 100_000],
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_large_prompt_has_the_history_that_it_has_in_one_go(prompt):
    body = json.dumps({"prompt": prompt}).encode()
    whole = chat.parse("completion", body)
    found, _ = run(requests.parse("completion", body, frozenset()))
    assert found.is_multi_sequence is whole.is_multi_sequence is False
    steps, count = run(stepped.raw_steps(SCOPE, found.prompt))
    assert steps == identity.raw_steps(SCOPE, whole.prompt)
    assert count > 0


@pytest.mark.parametrize("prompt", [["a"] * 100_000, [[1]] * 100_000, ["a", [1] * 100_000]])
def test_several_large_prompts_are_several(prompt):
    found, _ = run(requests.parse("completion", json.dumps({"prompt": prompt}).encode(), frozenset()))
    assert found.is_multi_sequence


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
    with pytest.raises(BadRequest) as found:
        run(requests.parse(kind, body, frozenset()))
    assert (found.value.status, found.value.param) == (400, whole.value.param)


def test_text_within_text_that_would_decode_to_millions_of_values_stays_text():
    arguments = "[" + "[]," * 400_000 + "[]]"
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    steps = [
        identity.chat_steps(
            SCOPE,
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{**call, "function": {**call["function"], "arguments": text}}],
                }
            ],
        )
        for text in (arguments, arguments.replace("[],", "[], "))
    ]
    assert steps[0] != steps[1]  # compared as they are written
