import json
from collections import OrderedDict
from dataclasses import dataclass

import pytest

from ppd_wire.json.strict import plain, to_json


@dataclass
class Figures:
    mean: float
    parts: tuple[float, ...]


def test_what_is_no_number_becomes_null_however_deep():
    assert json.loads(to_json(Figures(float("nan"), (1.5, float("inf"), float("-inf"))))) == {
        "mean": None,
        "parts": [1.5, None, None],
    }


def test_names_become_texts_and_bytes_the_text_that_they_are():
    assert plain(OrderedDict({1: (b"caf\xc3\xa9", b"\xff"), "x": {2.5: True}})) == {
        "1": ["café", "\ufffd"],
        "x": {"2.5": True},
    }


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "text", []])
def test_what_json_has_is_left_as_it_is(value):
    assert plain(value) == value
    assert type(plain(value)) is type(value)


def test_text_that_the_encoding_lacks_is_escaped():
    assert to_json("é") == '"é"'
    assert to_json("é", "ascii") == '"\\u00e9"'
    assert to_json("\ud800") == '"\\ud800"'
