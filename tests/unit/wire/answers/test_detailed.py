"""What a detailed answer's entries and messages come to."""

import msgspec
import pytest

from ppd_wire.answers.detailed import Message, TokenEntry

CALL = {"name": "a", "arguments": "{}"}


def entry(text):
    return msgspec.json.decode(b'{"bytes": %s}' % text, type=TokenEntry)


@pytest.mark.parametrize(
    ("text", "spelling"),
    [(b"[226, 130]", b"\xe2\x82"), (b"[]", b""), (b"null", None), (b"[256]", None), (b'"a"', None)],
)
def test_a_spelling_is_bytes_or_is_not_told(text, spelling):
    assert entry(text).spelling == spelling


def test_the_older_apis_only_call_is_a_call():
    assert Message(function_call=CALL).calls == [{"index": 0, "type": "function", "function": CALL}]
    assert Message(tool_calls=[{"id": "1"}], function_call=CALL).calls == [{"id": "1"}]
    assert Message().calls == []


def test_a_thought_has_two_names_and_may_be_empty():
    assert Message(reasoning_content="x").thought == "x"
    assert Message(reasoning="").has_thought
    assert not Message().has_thought
