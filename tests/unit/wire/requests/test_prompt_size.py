"""What counts as load of a prompt."""

import json

import pytest

from ppd_wire.requests.generation import parse
from ppd_wire.requests.opaque import parse_opaque
from ppd_wire.requests.prompt_size import opaque_size_bytes, prompt_size_bytes


def completion(**fields):
    return parse("completion", json.dumps({"prompt": "hi", **fields}).encode())


def chat(**fields):
    return parse("chat", json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode())


def test_the_size_of_a_prompt_counts_bytes_or_ids():
    assert prompt_size_bytes(completion(prompt=[1, 2, 3])) == 12
    assert prompt_size_bytes(completion(prompt="x" * 1000)) > 1000


@pytest.mark.parametrize("name", ["user", "metadata", "stop", "unknown"])
def test_fields_that_are_no_part_of_the_prompt_do_not_count_as_load(name):
    long = {name: "x" * 200_000}
    assert prompt_size_bytes(chat(**long)) == prompt_size_bytes(chat())
    assert prompt_size_bytes(completion(**long)) == prompt_size_bytes(completion())
    assert opaque_size_bytes(parse_opaque(json.dumps({"input": "Hi", **long}).encode())) == len('"Hi"')


@pytest.mark.parametrize("name", ["tools", "documents"])
def test_fields_that_are_rendered_into_the_prompt_count(name):
    assert prompt_size_bytes(chat(**{name: [{"x": "y" * 1000}]})) > 1000
