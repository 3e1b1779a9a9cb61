"""What an answer said, and whether two said the same."""

from typing import Any, NamedTuple

import pytest

from ppd_accuracy.answers.said import differences, is_nothing, said_of, sentence


class Answer(NamedTuple):
    text: str = ""
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = []
    finish_reason: str | None = "stop"


def calling(arguments: Any, name: str = "weather", **more: Any) -> Answer:
    told = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return Answer(tool_calls=[told | more])


def parts(one: Answer, other: Answer) -> list[str]:
    found = differences(said_of(one), said_of(other))
    assert (said_of(one).digest == said_of(other).digest) == (not found)
    return [each.part for each in found]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"city": "Paris", "days": 3}', '{"days":3,"city":"Paris"}'),
        ('{"a": {"b": 1, "c": [1, {"x": 1, "y": 2}]}}', '{"a":{"c":[1,{"y":2,"x":1}],"b":1}}'),
        ('{"city": "Z\\u00fcrich"}', '{"city": "Zürich"}'),
        (' {"a": 1}\n', '{"a": 1}'),
        ({"b": 2, "a": 1}, '{"a": 1, "b": 2}'),
        ("[]", "[ ]"),
    ],
)
def test_arguments_are_the_same_in_any_order_and_spacing(one: Any, other: Any) -> None:
    assert parts(calling(one), calling(other)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": 1}', '{"a": true}'),
        ('{"a": 12345678901234567890123}', '{"a": 12345678901234567890124}'),
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ('{"a": 1', '{"a": 1 '),
        ('{"a": NaN}', '{"a":NaN}'),
        ("", "{}"),
        ('{"a": null}', "{}"),
        ('{"a": ' * 4000, '{"b": ' * 4000),
        ('{"a": 1e999}', '{"a": 1e998}'),
    ],
)
def test_other_arguments_are_another_call_and_what_is_no_json_is_text(one: str, other: str) -> None:
    assert parts(calling(one), calling(other)) == ["tool_calls"]


def test_ids_of_calls_say_nothing_and_names_do() -> None:
    assert parts(calling("{}", id="call_1"), calling("{}", id="call_2")) == []
    assert parts(calling("{}", name="weather"), calling("{}", name="whether")) == ["tool_calls"]


def test_a_call_that_is_missing_or_comes_first_is_a_difference() -> None:
    one, other = calling("{}", "a").tool_calls, calling("{}", "b").tool_calls
    assert parts(Answer(tool_calls=one + other), Answer(tool_calls=one)) == ["tool_calls"]
    assert parts(Answer(tool_calls=one + other), Answer(tool_calls=other + one)) == ["tool_calls"]


def test_a_tool_that_takes_a_text_is_compared_by_its_text() -> None:
    one, other = (
        Answer(tool_calls=[{"type": "custom", "custom": {"name": "run", "input": text}}]) for text in ("ls", "rm")
    )
    assert parts(one, other) == ["tool_calls"]
    assert parts(one, one) == []


def test_every_part_is_compared() -> None:
    one = Answer(text="42", reasoning="six times seven", finish_reason="stop")
    assert parts(one, one._replace(text="43")) == ["content"]
    assert parts(one, one._replace(reasoning="six and seven")) == ["reasoning"]
    assert parts(one, one._replace(finish_reason="length")) == ["finish_reason"]
    assert parts(one, one._replace(reasoning=None, text="")) == ["reasoning", "content"]


def test_a_finish_reason_that_one_engine_does_not_tell_is_none_that_differs() -> None:
    assert differences(said_of(Answer("a")), said_of(Answer("a", finish_reason=None))) == []


def test_no_reasoning_is_empty_reasoning() -> None:
    assert parts(Answer("a", reasoning=None), Answer("a", reasoning="")) == []


def test_a_difference_says_where_and_what() -> None:
    told = sentence(differences(said_of(Answer("one two")), said_of(Answer("one too", finish_reason="length"))))
    assert told == "content from character 5 on: 'wo' / 'oo'; finish reason: 'stop' / 'length'"
    long = '{"text": "' + "x" * 200
    told = sentence(differences(said_of(calling(long + '1"}')), said_of(calling(long + '2"}'))))
    assert "1\"}" in told
    assert "2\"}" in told


def test_an_answer_that_says_nothing_has_nothing_but_its_end() -> None:
    nothing = said_of(Answer())
    assert is_nothing(nothing, None)
    assert is_nothing(nothing, [2])  # the end token alone
    assert not is_nothing(nothing, [7, 2])
    assert not is_nothing(said_of(Answer(finish_reason="length")), [7])  # half a character
    assert not any(is_nothing(said_of(each), None) for each in (Answer("a"), Answer(reasoning="a"), calling("{}")))


def test_people_read_all_parts() -> None:
    told = Answer(text="yes", reasoning="so", tool_calls=calling('{"b": 1, "a": 2}').tool_calls)
    assert str(said_of(told)) == '[reasoning] so\nyes\n[tool call] weather({"a":2,"b":1})'
    assert str(said_of(Answer("yes"))) == "yes"
