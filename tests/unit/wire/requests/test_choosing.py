"""How a request has the engine choose its tokens."""

from typing import Any

import msgspec
import pytest

from ppd_wire.requests.choosing import is_greedy, is_repeatable, is_shaped


def fields(**values: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"temperature": 0}, True), ({"temperature": 1, "seed": 5}, True), ({"temperature": 1}, False), ({}, False)],
)
def test_a_replay_needs_a_request_that_repeats(values: dict[str, Any], expected: bool) -> None:
    assert is_repeatable(fields(**values)) is expected


@pytest.mark.parametrize("values", [{}, {"temperature": None}, {"temperature": "hot"}, {"temperature": 0.1}])
def test_only_a_temperature_of_nothing_is_greedy(values: dict[str, Any]) -> None:
    assert is_greedy(fields(temperature=0.0))
    assert not is_greedy(fields(**values))


def test_fields_shape_the_logits_unless_they_say_what_is_usual() -> None:
    usual = fields(presence_penalty=0, logit_bias={}, tool_choice="auto", response_format={"type": "text"})
    assert not is_shaped({**usual, **fields(min_tokens=None)})
    assert is_shaped({**usual, **fields(logit_bias={"5": 1})})
    assert is_shaped({**usual, **fields(tool_choice="required")})
