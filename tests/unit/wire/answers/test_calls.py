"""Tool calls put together from pieces: whose piece is whose. What engines stream is in acc/ask/test_streams_calls."""

import pytest

from ppd_wire.answers.calls import Calls


def whole(*events):
    calls = Calls()
    for pieces in events:
        calls.add(pieces)
    return [(call.get("id"), call["function"].get("name"), call["function"].get("arguments")) for call in calls.whole]


def piece(arguments=None, *, index=None, name=None, **more):
    return {**more, "function": {"name": name, "arguments": arguments}} | ({} if index is None else {"index": index})


def test_pieces_belong_to_the_call_with_their_index():
    events = [piece(index=0, name="a", id="1")], [piece(index=1, name="b", id="2")], [piece("{}", index=0)]
    assert whole(*events, [piece("[]", index=1)]) == [("1", "a", "{}"), ("2", "b", "[]")]


def test_calls_are_ordered_by_their_index_from_whatever_it_counts():
    assert whole([piece(index=2, name="b")], [piece(index=1, name="a")]) == [(None, "a", None), (None, "b", None)]


@pytest.mark.parametrize("index", [None, 0])
def test_another_id_with_a_name_begins_another_call_where_the_index_does_not_tell(index):
    events = [piece("{", index=index, name="a", id="1")], [piece("}", index=index)]
    assert whole(*events, [piece("{}", index=index, name="b", id="2")]) == [("1", "a", "{}"), ("2", "b", "{}")]


def test_an_id_that_is_made_up_for_every_piece_begins_nothing():
    assert whole([piece("{", index=0, name="a", id="1")], [piece("}", index=0, id="2")])[0][1:] == ("a", "{}")


def test_arguments_that_come_as_an_object_are_text_in_the_end():
    assert whole([piece({"city": "Rome"}, index=0, name="a")]) == [(None, "a", '{"city":"Rome"}')]
