"""Events that say their type: what that is, how they are numbered, and what fails or breaks a stream."""

import pytest

from ppd_wire.dialects.typed_events import TypedRelay, read_object
from ppd_wire.events import frame

HIDDEN, PUBLIC = b"ab" * 16, b"cd" * 16


class Plain(TypedRelay):
    """Passes all on, and remembers the types; `last` ends it."""

    __slots__ = ("kinds",)

    def __init__(self):
        super().__init__(hidden_id=HIDDEN, public_id=PUBLIC)
        self.kinds = []

    def _typed(self, kind, event, fields):
        self.kinds.append(kind)
        self.is_decisive = True
        if kind == "last":
            self._end()
        return self._shown(event).raw

    def _failed(self, event, fields):
        self._fail(event.data, 500)
        return event.raw


@pytest.fixture
def relay():
    return Plain()


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (b'{"type":"a"}', b"", "a"), (b'{"type":"a"}', b"b", "a"), (b'{"x":1}', b"b", "b"), (b'{"type":5}', b"b", "b"),
    ],
)  # fmt: skip
def test_an_event_is_of_the_type_in_its_data_or_of_its_name(relay, data, name, kind):
    assert relay.feed(frame(data, name)) == frame(data, name)
    assert relay.kinds == [kind]


@pytest.mark.parametrize("event", [frame(b"[1]"), frame(b"nonsense"), frame(b"{}"), frame(b'{"type":"a\xff"}')])
def test_an_event_without_a_type_breaks_the_stream(relay, event):
    assert relay.feed(event) == b""
    assert relay.broken == "the engine sent an event that is no JSON object with a type"


@pytest.mark.parametrize(
    "event", [frame(b'{"type":"error"}'), frame(b'{"type":"a"}', b"error"), frame(b'{"error":{"message":"x"}}')]
)
def test_an_error_is_known_by_type_name_or_member(relay, event):
    relay.feed(event)
    assert (relay.error_status, relay.is_over, relay.broken) == (500, True, None)


def test_an_error_of_null_is_none(relay):
    relay.feed(frame(b'{"type":"a","error":null}'))
    assert relay.error is None


def test_the_end_of_another_dialect_is_passed_over(relay):
    assert relay.feed(frame(b'{"type":"a"}') + frame(b"[DONE]")) == frame(b'{"type":"a"}')
    assert not relay.is_over


def test_events_are_counted_unless_they_number_themselves(relay):
    numbers = []
    for data in (b'{"type":"a"}', b'{"type":"a"}', b'{"type":"a","sequence_number":7}', b'{"type":"a"}'):
        relay.feed(frame(data))
        numbers.append(relay.next_number)
    assert numbers == [1, 2, 8, 9]


@pytest.mark.parametrize("number", [b"-1", b"1.5", b'"7"', b"9999999999"])
def test_a_number_that_is_none_is_not_taken(relay, number):
    relay.feed(frame(b'{"type":"a","sequence_number":' + number + b"}"))
    assert relay.next_number == 1


def test_ids_and_handoff_parameters_of_the_engine_are_not_shown(relay):
    shown = relay.feed(frame(b'{"type":"a","id":"' + HIDDEN + b'","kv_transfer_params":{"remote_host":"h"}}'))
    assert HIDDEN not in shown
    assert b"remote_host" not in shown
    assert PUBLIC in shown


@pytest.mark.parametrize("raw", [None, b"", b"[1]", b"5", b'{"a":', b'{"a":"\xff"}', b"[" * 100_000])
def test_what_is_no_object_in_utf_8_is_none(raw):
    assert read_object(raw) is None


def test_the_members_of_an_object_stay_as_they_are_written():
    assert {name: bytes(value) for name, value in read_object(b'{"a": 1.50, "b":[ ]}').items()} == {
        "a": b"1.50", "b": b"[ ]",
    }  # fmt: skip
