"""One upstream connection: how the bytes of an engine become calls, and when the connection is used again."""

import asyncio

import pytest
from tests.support.scripted import BODY, HEAD, OK, SSE_END, SSE_HEAD, answer, chunk

from ppd_proxy.upstream.connection import Connection


class Wire(asyncio.Transport):
    """The socket's side of a connection: what was written, and whether it is closed."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.is_closed = self.is_aborted = False
        self.is_read = True

    def writelines(self, pieces):
        self.written += b"".join(pieces)

    def is_closing(self):
        return self.is_closed

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = self.is_aborted = True

    def is_reading(self):
        return self.is_read

    def pause_reading(self):
        self.is_read = False

    def resume_reading(self):
        self.is_read = True


class Receiver:
    def __init__(self):
        self.calls = []
        self.body = b""
        self.failure = None
        self.is_untouched = None

    def on_headers(self, status, headers):
        self.calls.append("headers")
        self.status, self.headers = status, headers

    def on_data(self, data):
        self.calls[-1] == "data" or self.calls.append("data")
        self.body += data

    def on_complete(self):
        self.calls.append("complete")

    def on_failure(self, failure, *, is_untouched):
        self.calls.append("failure")
        self.failure, self.is_untouched = failure, is_untouched


class Line:
    """A connection on a wire, and what its owner hears."""

    def __init__(self):
        self.idle, self.lost = [], []
        self.connection = Connection(self.idle.append, self.lost.append)
        self.wire = Wire()
        self.connection.connection_made(self.wire)

    def ask(self):
        receiver = Receiver()
        self.connection.request(HEAD, BODY, receiver)
        return receiver

    def hear(self, *pieces):
        for piece in pieces:
            self.connection.data_received(piece)

    def lose(self, error=None):
        self.connection.connection_lost(error)


@pytest.fixture
def line():
    return Line()


WHOLE = ["headers", "data", "complete"]


def test_a_request_is_written_and_its_answer_told_in_order(line):
    receiver = line.ask()
    assert line.wire.written == HEAD + BODY
    line.hear(b"HTTP/1.1 201 Created\r\nX-Big: One\r\nContent-Length: 5\r\n\r\nhello")
    assert (receiver.status, receiver.headers) == (201, [(b"x-big", b"One"), (b"content-length", b"5")])
    assert (receiver.calls, receiver.body) == (WHOLE, b"hello")
    assert line.idle == [line.connection]
    assert not line.wire.is_closed


ANSWERS = {
    "whole": (OK, b"{}"),
    "chunked": (SSE_HEAD + chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + SSE_END, b"data: 1\n\ndata: 2\n\n"),
    "trailers": (SSE_HEAD + chunk(b"a") + b"0\r\nx-trailer: 1\r\n\r\n", b"a"),
}


@pytest.mark.parametrize(("data", "body"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_split_at_any_byte_is_the_same(data, body):
    for index in range(1, len(data)):
        line = Line()
        receiver = line.ask()
        line.hear(data[:index], data[index:])
        assert (receiver.calls, receiver.body, len(line.idle)) == (WHOLE, body, 1), index
    line = Line()
    receiver = line.ask()
    line.hear(*(data[index : index + 1] for index in range(len(data))))
    assert (receiver.calls, receiver.body) == (WHOLE, body)


def test_an_answer_without_a_body_is_complete_after_its_headers(line):
    for head in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"):
        receiver = line.ask()
        line.hear(head)
        assert receiver.calls == ["headers", "complete"]


def test_a_connection_serves_one_request_after_the_other(line):
    for number in range(3):
        receiver = line.ask()
        line.hear(answer(200, b"%d" % number))
        assert receiver.body == b"%d" % number
    assert len(line.idle) == 3


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ],
    ids=["close", "1.0"],
)
def test_a_connection_that_will_close_is_not_used_again(line, head):
    receiver = line.ask()
    line.hear(head)
    assert receiver.calls == WHOLE
    assert line.idle == []
    assert line.wire.is_closed


def test_an_answer_may_last_until_the_end_of_the_connection(line):
    receiver = line.ask()
    line.hear(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo")
    assert receiver.calls == ["headers", "data"]
    line.lose()
    assert (receiver.calls, receiver.body) == (WHOLE, b"hello")
    assert line.idle == []


def test_an_answer_until_the_end_that_is_reset_is_a_failure(line):
    receiver = line.ask()
    line.hear(b"HTTP/1.1 200 OK\r\n\r\nhel")
    line.lose(ConnectionResetError("reset"))
    assert receiver.calls[-1] == "failure"


@pytest.mark.parametrize(
    "cut", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel", SSE_HEAD + chunk(b"data"), b"HTTP/1.1 200 OK\r\ncont"]
)
def test_an_answer_that_is_cut_short_is_a_failure(line, cut):
    receiver = line.ask()
    line.hear(cut)
    line.lose()
    assert receiver.calls[-1] == "failure"
    assert "complete" not in receiver.calls
    assert not receiver.is_untouched
    assert (receiver.failure.status, receiver.failure.reason) == (502, "engine_error")


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00", b"<html>no</html>", b"HTTP/9.9 abc\r\n\r\n", b"\x00" * 40]
)
def test_garbage_is_a_failure_and_closes_the_connection(line, garbage):
    receiver = line.ask()
    line.hear(garbage)
    assert receiver.calls == ["failure"]
    assert not receiver.is_untouched
    assert line.wire.is_closed
    assert line.idle == []
    line.lose()
    assert receiver.calls == ["failure"]


def test_garbage_in_the_middle_of_an_answer_is_a_failure(line):
    receiver = line.ask()
    line.hear(SSE_HEAD, chunk(b"data"), b"zz\r\n")
    assert receiver.calls == ["headers", "data", "failure"]


def test_p29_a_reused_connection_that_ends_before_any_byte_was_never_read_by_the_engine(line):
    line.ask()
    line.hear(OK)
    second = line.ask()
    line.lose()
    assert second.calls == ["failure"]
    assert second.is_untouched


def test_p29_a_reused_connection_that_is_reset_was_never_read_either(line):
    line.ask()
    line.hear(OK)
    second = line.ask()
    line.lose(ConnectionResetError())
    assert second.is_untouched


def test_p29_the_first_request_of_a_connection_may_have_been_read(line):
    receiver = line.ask()
    line.lose()
    assert receiver.calls == ["failure"]
    assert not receiver.is_untouched


def test_p29_a_reused_connection_that_ends_after_a_byte_was_read(line):
    line.ask()
    line.hear(OK)
    second = line.ask()
    line.hear(b"H")
    line.lose()
    assert not second.is_untouched


def test_an_aborted_request_hears_nothing_more(line):
    receiver = line.ask()
    line.connection.abort()
    assert line.wire.is_aborted
    line.hear(OK)
    line.lose()
    assert receiver.calls == []
    assert line.idle == []


def test_an_idle_connection_that_talks_is_closed(line):
    line.hear(OK)
    assert line.wire.is_closed
    assert line.idle == []


def test_two_answers_to_one_request_end_the_connection(line):
    """Whatever the second one is for, nobody must get it, and the connection must not be lent to two requests."""
    receiver = line.ask()
    line.hear(OK + answer(200, b"whose?"))
    assert (receiver.calls, receiver.body) == (WHOLE, b"{}")
    assert line.wire.is_closed
    assert len(line.idle) <= 1


def test_an_interim_answer_is_not_the_answer(line):
    """A 100 Continue from a middlebox, though nothing asked for one."""
    receiver = line.ask()
    line.hear(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert (receiver.status, receiver.body) == (200, b"{}")
    assert receiver.calls[-2:] == ["data", "complete"]
    assert len(line.idle) == 1


def test_a_receiver_that_fails_ends_its_leg_not_the_proxy(line):
    class Broken(Receiver):
        def on_data(self, data):
            raise RuntimeError("a bug")

    receiver = Broken()
    line.connection.request(HEAD, BODY, receiver)
    line.hear(OK)
    assert receiver.calls == ["headers", "failure"]
    assert line.wire.is_closed


def test_reading_pauses_and_goes_on_by_itself_after_the_answer(line):
    line.ask()
    line.hear(OK[:-1])
    line.connection.pause()
    assert not line.wire.is_read
    line.connection.resume()
    assert line.wire.is_read
    line.connection.pause()
    line.hear(OK[-1:])
    assert line.wire.is_read
    assert line.idle


def test_a_closed_connection_is_neither_paused_nor_resumed(line):
    line.connection.close()
    line.connection.pause()
    assert line.wire.is_read
    assert not line.connection.is_open


def test_a_connection_that_was_never_made_takes_no_request():
    connection = Connection(print, print)
    assert not connection.is_open
    with pytest.raises(RuntimeError, match="not open"):
        connection.request(HEAD, BODY, Receiver())
