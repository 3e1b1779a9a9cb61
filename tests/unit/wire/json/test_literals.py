"""Numbers that JSON does not have, hidden from a strict reader and put back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_wire.json.literals import hide, show


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_hidden_literal_is_a_number_and_comes_back(literal):
    body = b'{"a": [' + literal + b'], "' + literal + b'": "' + literal + b'"}'
    hidden = hide(body)
    assert json.loads(hidden, parse_constant=pytest.fail) == {"a": [0.0], literal.decode(): literal.decode()}
    assert show(hidden) == body


@given(st.lists(st.sampled_from(['"', "\\", "NaN", "-Infinity", "Infinity", "a", ",", "1", "-0e-77001"]), max_size=12))
def test_hidden_literals_come_back_and_text_is_never_touched(parts):
    body = "".join(part for part in parts if part != "-0e-77001").encode()
    assert show(hide(body)) == body
    text = b'"' + body.replace(b"\\", b"").replace(b'"', b"") + b'-0e-77001"'
    assert hide(text) == show(text) == text
