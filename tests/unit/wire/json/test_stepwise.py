"""Large JSON texts are read in steps as in one go, wherever the pieces end."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.steps import BIG, run, text_of

from ppd_wire.json import stepwise

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
