"""Two answers side by side, up to their first difference."""

from ppd_accuracy.answers.replays import ReplaySide, compare


def test_equal_answers_differ_in_nothing() -> None:
    found = compare(ReplaySide([1, 2, 3], "stop"), ReplaySide([1, 2, 3], "stop"))
    assert found.first_difference is None
    assert (found.prefix_tokens, found.token_accuracy, found.length_delta) == (3, 1.0, 0)
    assert found.has_same_finish
    assert found.has_same_tools


def test_what_follows_a_first_difference_does_not_count_as_equal() -> None:
    found = compare(ReplaySide([1, 2, 9, 4]), ReplaySide([1, 2, 3, 4]))
    assert (found.prefix_tokens, found.first_difference, found.token_accuracy) == (2, 2, 0.5)


def test_a_longer_answer_differs_where_the_shorter_ends() -> None:
    found = compare(ReplaySide([1, 2, 3], "stop"), ReplaySide([1, 2], "length"))
    assert (found.first_difference, found.length_delta) == (2, 1)
    assert found.is_censored
    assert not found.has_same_finish


def test_two_empty_answers_are_equal() -> None:
    assert compare(ReplaySide([]), ReplaySide([])).token_accuracy == 1.0


def test_tool_calls_are_equal_whatever_their_ids() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    other = {"id": "b", "function": {"name": "f", "arguments": "{}"}}
    assert compare(ReplaySide([1], tool_calls=[call]), ReplaySide([1], tool_calls=[other])).has_same_tools
    different = {"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}}
    assert not compare(ReplaySide([1], tool_calls=[call]), ReplaySide([1], tool_calls=[different])).has_same_tools


def test_tool_calls_are_equal_in_any_order_of_their_arguments() -> None:
    one, other = (
        {"function": {"name": "f", "arguments": arguments}} for arguments in ('{"a": 1, "b": 2}', '{"b":2,"a":1}')
    )
    assert compare(ReplaySide([1], tool_calls=[one]), ReplaySide([1], tool_calls=[other])).has_same_tools
