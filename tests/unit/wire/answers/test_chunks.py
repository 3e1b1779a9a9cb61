"""Many events of a stream read at once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_wire.answers.answer import Assembly
from ppd_wire.answers.chunks import are_chunks, read_chunks, split_plain

END = (
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | st.text(max_size=5),
        "reasoning": st.none() | st.text(max_size=2),
        "tool_calls": st.none() | st.just([]) | st.just([{"index": 0, "id": "c", "function": {"name": "f"}}]),
    },
)
CHOICES = st.fixed_dictionaries(
    {"delta": DELTAS},
    optional={
        "index": st.sampled_from([0, 0, 0, 1]),
        "finish_reason": st.sampled_from([None, None, "stop"]),
        "token_ids": st.none() | st.lists(st.integers(0, 9), max_size=2),
    },
)
TEXTS = st.fixed_dictionaries({"text": st.text(max_size=5)}, optional={"index": st.just(0)})
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES | TEXTS, min_size=1, max_size=2) | st.just([])},
    optional={"usage": st.none() | st.just({"prompt_tokens": 7}), "id": st.text(max_size=3)},
)


def stream(*chunks):
    return b"".join(b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode() for chunk in chunks)


def piece(text, **more):
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, **more}]}


def said(*parts):
    assembly = Assembly()
    for part in parts:
        assembly.add_texts(part) if part and isinstance(part[0], str) else assembly.add(part)
    return assembly.answer()


@given(st.lists(CHUNKS, max_size=8))
def test_an_answer_says_the_same_however_it_is_read(chunks):
    events = stream(*chunks)
    texts, rest = split_plain(events)
    assert said(texts, read_chunks(rest)) == said(read_chunks(events))


@given(st.lists(st.text(max_size=5), min_size=4, max_size=9))
def test_pieces_of_text_are_split_from_the_end(texts):
    found, rest = split_plain(stream(*map(piece, texts), *END) + b"data: [DONE]\n\n")
    assert found == texts
    assert rest == stream(*END) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "odd", [piece("a", index=1), piece("a", token_ids=[1]), {"choices": []}, {"error": {}}, piece(None), {"choices": 7}]
)
def test_where_an_event_says_anything_else_nothing_is_split(odd):
    events = stream(piece("a"), odd, *[piece("b")] * 5)
    assert split_plain(events) == ([], events)


def test_what_is_no_chunk_is_none():
    assert read_chunks(stream({"choices": 7})) is None
    assert not are_chunks(stream({"choices": 7}))
    assert are_chunks(stream(piece("a"), {"choices": [{"logprobs": 7}]}))
