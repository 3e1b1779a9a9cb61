"""What sampling fields must be."""

import pytest

from ppd_wire.requests.sampling_fields import wrong_field


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 1, "min_tokens": 0, "top_k": -1, "temperature": 0, "top_p": 1}, {"stop": ["a", "b"]},
        {"temperature": None}, {"anything": "else"}, {"ignore_eos": False}, {"seed": 2**63 - 1},
    ],
)  # fmt: skip
def test_what_engines_take_is_right(fields):
    assert wrong_field(fields) is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; it must be an integer from 1"),
        ({"max_tokens": True}, "max_tokens is True; it must be an integer from 1"),
        ({"top_p": 0}, "top_p is 0; it must be a number above 0 to 1"),
        ({"temperature": float("nan")}, "temperature is nan; it must be a number from 0"),
        ({"presence_penalty": -2.5}, "presence_penalty is -2.5; it must be a number from -2 to 2"),
        ({"ignore_eos": 1}, "ignore_eos is 1; it must be true or false"),
        ({"stop": [""]}, "stop is ['']; it must be a text or a list of texts, none of them empty"),
        ({"stop": ["x" * 99, 1]}, "must be a text"),
    ],
)
def test_the_first_wrong_one_is_named_with_what_is_right(fields, sentence):
    assert sentence in wrong_field({"temperature": 1.0, **fields})
