"""What is the same for streams of every dialect: what is held, what ends them, what is not passed on."""

import pytest

from ppd_wire.dialects.relay import MAX_HELD_BYTES, Relay
from ppd_wire.events import MAX_EVENT_BYTES, frame

END, ERROR, BROKEN = frame(b"end"), frame(b"error"), frame(b"broken")
ROLE, TEXT, HIDDEN = frame(b"role"), frame(b"text"), frame(b"hidden")


class Words(Relay):
    """A dialect of one word per event."""

    __slots__ = ()

    def _event(self, event):
        if event.data == b"broken":
            self._break("an odd word")
            return None
        if event.data == b"error":
            self._fail(b"{}", 503)
        if event.data == b"end":
            self._end()
        self.is_decisive = self.is_decisive or event.data in (b"text", b"end")
        return None if event.data == b"hidden" else event.raw


@pytest.fixture
def relay():
    return Words(hidden_id=b"h", public_id=b"p")


def test_nothing_goes_out_before_the_first_decisive_event_and_then_all_of_it(relay):
    assert relay.feed(ROLE + b": a comment\n\n") == b""
    assert not relay.is_decisive
    assert relay.feed(HIDDEN + TEXT) == ROLE + b": a comment\n\n" + TEXT
    assert relay.feed(TEXT) == TEXT


def test_an_event_waits_for_its_end(relay):
    assert relay.feed(TEXT[:5]) == b""
    assert relay.feed(TEXT[5:]) == TEXT


def test_behind_the_end_nothing_is_passed_on(relay):
    assert relay.feed(TEXT + END + TEXT) == TEXT + END
    assert (relay.is_over, relay.is_done, relay.has_more, relay.error) == (True, True, True, None)
    assert relay.feed(TEXT) == b""


def test_an_end_that_comes_last_has_no_more_until_more_comes(relay):
    relay.feed(TEXT + END)
    assert not relay.has_more
    relay.feed(b"\n")
    assert relay.has_more


def test_an_error_is_the_last_that_the_client_gets(relay):
    relay.feed(TEXT)
    assert relay.feed(ERROR + TEXT) == ERROR
    assert (relay.is_over, relay.is_done, relay.error, relay.error_status) == (True, False, b"{}", 503)


def test_an_error_before_any_content_is_not_sent(relay):
    assert relay.feed(ROLE + ERROR) == b""
    assert (relay.error, relay.is_decisive) == (b"{}", False)


def test_what_cannot_be_read_breaks_the_answer(relay):
    assert relay.feed(TEXT + BROKEN + TEXT) == TEXT
    assert (relay.broken, relay.is_over, relay.is_done) == ("an odd word", True, False)


def test_an_event_without_an_end_is_bounded(relay):
    relay.feed(b"data: " + b"x" * (MAX_EVENT_BYTES + 1))
    assert relay.broken == f"the engine sent an event of more than {MAX_EVENT_BYTES} bytes"


def test_what_is_held_before_any_content_is_bounded(relay):
    comment = b": " + b"x" * 65536 + b"\n\n"
    count = MAX_HELD_BYTES // len(comment) + 1
    assert not any(relay.feed(comment) for _ in range(count))
    assert relay.broken == f"the engine sent {count * len(comment)} bytes without any content"


def test_by_itself_a_relay_takes_no_chunk_unread_and_numbers_nothing(relay):
    assert not relay.takes_chunk(b"5\r\nhello\r\n")
    assert relay.next_number == 0
