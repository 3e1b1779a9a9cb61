"""The model that a request names, for a line of the log."""

import json

import pytest

from ppd_wire.requests.generation import parse
from ppd_wire.requests.named_model import MAX_NAME_BYTES, MAX_READ_BYTES, named_model


@pytest.mark.parametrize("value", [b'"m"', b"null", b"5", b'{"a":1.50}', rb'"\u00e9"'])
def test_the_model_is_told_as_it_is_written_whatever_it_is(value):
    assert named_model(b'{"x":[1],"model":' + value + b',"prompt":"hi"}') == value


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"nonsense", b'{"model":', b"[" * 100_000])
def test_what_names_none_or_cannot_be_read_has_none(body):
    assert named_model(body) is None


def test_a_large_body_is_read_only_where_somebody_else_has_read_it():
    body = json.dumps({"model": "m", "prompt": "x" * MAX_READ_BYTES}).encode()
    assert named_model(body) is None
    assert named_model(body, parse("completion", body)) == b'"m"'
    assert named_model(b"{}", parse("completion", b'{"prompt":"hi"}')) is None


def test_of_a_long_name_the_beginning_is_told():
    body = json.dumps({"model": "m" * 2 * MAX_NAME_BYTES}).encode()
    assert named_model(body) == b'"' + b"m" * (MAX_NAME_BYTES - 1)
