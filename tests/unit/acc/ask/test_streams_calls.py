"""Tool calls of a stream come to what a JSON answer has, however they are cut."""

import json

import pytest
from tests.support.acc.answers import answer, call, events_of

from ppd_acc.ask.answers import read_answer
from ppd_acc.ask.streams import StreamReader


def streamed(*deltas, finish="tool_calls"):
    reader = StreamReader()
    for number, delta in enumerate([*deltas, None]):
        choice = {"index": 0, "delta": delta or {}, "finish_reason": finish if delta is None else None}
        reader.feed(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n", float(number))
    return reader.finish(9.0).answer


def piece(index=None, call_id=None, name=None, arguments=None, **more):
    told = {"function": {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}}
    told |= {key: value for key, value in (("index", index), ("id", call_id)) if value is not None}
    return told | more


def said(*pieces):
    """One delta for each list of pieces; the calls that they come to."""
    calls = streamed(*({"tool_calls": each} for each in pieces)).said.tool_calls
    return [(each.name, each.arguments) for each in calls]


TWO = [("f", '{"a":1}'), ("g", '{"b":2}')]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [[piece(0, "x", "f", "")], [piece(0, None, None, '{"a"')], [piece(0, None, None, ": 1}")],
             [piece(1, "y", "g", '{"b": 2}')]],
            id="one after the other",
        ),
        pytest.param(
            [[piece(1, "x", "f", '{"a"')], [piece(2, "y", "g", '{"b": 2}')], [piece(1, None, None, ": 1}")]],
            id="indices from 1, interleaved",
        ),
        pytest.param([[piece(0, "x", "f", '{"a": 1}'), piece(1, "y", "g", '{"b": 2}')]], id="several in one delta"),
        pytest.param([[piece(1, "y", "g", '{"b": 2}')], [piece(0, "x", "f", '{"a": 1}')]], id="the second first"),
        pytest.param([[piece(0, "x", "f", '{"a": 1}'), piece(0, "y", "g", '{"b": 2}')]], id="all have index 0"),
        pytest.param([[piece(0, "x", "f", '{"a": 1}')], [piece(0, "y", "g", '{"b": 2}')]], id="index 0, apart"),
        pytest.param([[piece(0, None, "f", '{"a": 1}'), piece(0, None, "g", '{"b": 2}')]], id="index 0 and no ids"),
        pytest.param([[piece(None, "x", "f", '{"a": 1}'), piece(None, "y", "g", '{"b": 2}')]], id="no index"),
        pytest.param([[piece(None, None, "f", '{"a": 1}')], [piece(None, None, "g", '{"b": 2}')]], id="neither"),
        pytest.param([[piece(None, "x", "f", '{"a"')], [piece(None, None, None, ": 1}")],
                      [piece(None, "y", "g", '{"b": 2}')]], id="no index, in pieces"),
        pytest.param([[piece(None, None, "f", {"a": 1}), piece(None, None, "g", {"b": 2})]], id="objects"),
    ],
)  # fmt: skip
def test_two_calls_are_two_calls(pieces):
    assert said(*pieces) == TWO


def test_names_come_in_pieces_too():
    assert said([piece(1, "x", "get_")], [piece(1, None, "weather", "{}")]) == [("get_weather", "{}")]


def test_an_id_for_every_piece_makes_no_other_call():
    assert said([piece(0, "x", "f", '{"a"')], [piece(0, "y", None, ": 1}")]) == [("f", '{"a":1}')]


def test_the_older_apis_only_call_is_a_call_streamed_and_whole():
    told = streamed({"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": '{"a": 1}'}})
    body = answer(None, function_call={"name": "f", "arguments": '{"a":1}'}, finish="tool_calls")
    whole = read_answer(json.dumps(body).encode())
    assert told.said == whole.said
    assert whole.said.tool_calls


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_whole_answer_says_what_its_stream_says(field):
    calls = [call("f", '{"a": 1, "b": 2}'), call("g", "{}", "c2")]
    told = answer("yes", finish="tool_calls", tool_calls=calls, **{field: "because"})
    reader = StreamReader()
    for event in events_of(told):
        reader.feed(b"data: " + json.dumps(event).encode() + b"\n\n", 1.0)
    assert reader.finish(2.0).answer.said == read_answer(json.dumps(told).encode()).said
