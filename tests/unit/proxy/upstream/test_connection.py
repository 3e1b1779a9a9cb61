"""One upstream connection: how the bytes of an engine become calls, and when the connection is used again."""


import pytest
from tests.support.scripted import BODY, HEAD, OK, SSE_END, SSE_HEAD, answer, chunk
from tests.support.wire import Line, Receiver

from ppd_proxy.upstream.connection import Connection


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


EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
NOTHING = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
LINE_ENDS = answer(200, b"\r\n\r\n")
ENDINGS = {**ANSWERS, "204": (EMPTY, b""), "no bytes": (NOTHING, b""), "line ends": (LINE_ENDS, b"\r\n\r\n")}
STRAY = {
    "LF": b"\n",
    "CRLF": b"\r\n",
    "CRLFs": b"\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "a head": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
    "half an answer": answer(200, b"whose?")[:-2],
    "an answer": answer(200, b"whose?"),
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "last chunk": SSE_END,
    "garbage": b"\x16\x03\x01\x02\x00",
    "body": b"}",
}


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize(("data", "body"), ENDINGS.values(), ids=ENDINGS)
def test_bytes_behind_an_answer_end_the_connection_wherever_they_are_split(data, body, stray):
    """Nobody must get them, and nobody's answer may begin with them."""
    whole = data + stray
    for first in range(len(whole) + 1):
        for second in {first, len(data), len(data) + 1, len(whole) - 1}:
            pieces = sorted((first, min(second, len(whole))))
            line = Line()
            receiver = line.ask()
            for piece in (whole[: pieces[0]], whole[pieces[0] : pieces[1]], whole[pieces[1] :]):
                if piece and line.connection.is_open:
                    line.hear(piece)
            assert (receiver.calls[-1], receiver.body) == ("complete", body), pieces
            assert receiver.calls.count("complete") == 1
            assert not line.connection.is_open, pieces
            if len(data) not in pieces:
                assert line.idle == [], pieces  # nobody could have had it in between


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
def test_bytes_on_an_idle_connection_end_it(line, stray):
    line.ask()
    line.hear(OK)
    line.hear(stray[:1])
    assert not line.connection.is_open


def test_an_answer_to_half_a_request_ends_the_connection(line):
    """The engine may take the rest of the body for the next request."""
    receiver = line.ask()
    line.wire.unsent = 5
    line.hear(answer(413, b"too large"))
    assert (receiver.calls, receiver.body) == (WHOLE, b"too large")
    assert line.wire.is_aborted
    assert line.idle == []


AMBIGUOUS = {
    "length and chunks": b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and length": b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": b"content-length: 2\r\ncontent-length: 4\r\n\r\n{}{}",
    "no number": b"content-length: +2\r\n\r\n{}",
}


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_answer_with_two_ends_is_a_failure(line, rest):
    receiver = line.ask()
    line.hear(b"HTTP/1.1 200 OK\r\n" + rest)
    assert receiver.calls == ["failure"]
    assert not line.connection.is_open


def test_the_receiver_can_keep_a_connection_from_being_used_again(line):
    class Suspicious(Receiver):
        def on_complete(self):
            super().on_complete()
            line.connection.close()

    receiver = Suspicious()
    line.connection.request(HEAD, BODY, receiver)
    line.hear(OK)
    assert receiver.calls == WHOLE
    assert line.idle == []


def test_an_interim_answer_is_not_the_answer(line):
    """A 100 Continue from a middlebox, though nothing asked for one."""
    receiver = line.ask()
    line.hear(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK)
    assert (receiver.status, receiver.body) == (200, b"{}")
    assert receiver.calls == WHOLE
    assert len(line.idle) == 1


def test_a_connection_that_becomes_something_else_is_a_failure(line):
    receiver = line.ask()
    line.hear(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n" + OK)
    assert receiver.calls == ["failure"]
    assert not line.connection.is_open


def test_what_one_read_brings_of_a_body_comes_in_one_piece(line):
    """A receiver's work is by the piece, and a fast stream has many events in one read."""

    class Collecting(Receiver):
        def on_data(self, data):
            pieces.append(data)

    pieces = []
    line.connection.request(HEAD, BODY, Collecting())
    line.hear(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%d\r\n" % n for n in range(9)))
    line.hear(b"".join(b"1\r\n%d\r\n" % n for n in range(5)) + b"0\r\n\r\n")
    assert pieces == [b"012345678", b"01234"]


@pytest.mark.parametrize("behind", [b"", b"\r\n", b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
@pytest.mark.parametrize("cut", [0, 1, 20, 40])
def test_a_connection_serves_again_only_if_nothing_came_behind_the_length(line, behind, cut):
    receiver = Receiver()
    line.connection.request(HEAD, BODY, receiver)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\r\n\r\n" + behind
    for part in (answer[:cut], answer[cut:]):
        if part:
            line.hear(part)
    assert receiver.calls[-1] == "complete"
    assert len(line.idle) == (not behind)


def test_a_receiver_that_fails_ends_its_leg_not_the_proxy(line):
    class Broken(Receiver):
        def on_data(self, data):
            raise RuntimeError("a bug")

    receiver = Broken()
    line.connection.request(HEAD, BODY, receiver)
    line.hear(OK)
    assert receiver.calls == ["headers", "failure"]
    assert line.wire.is_closed


def test_a_connection_that_was_never_made_takes_no_request():
    connection = Connection(print, print)
    assert not connection.is_open
    with pytest.raises(RuntimeError, match="not open"):
        connection.request(HEAD, BODY, Receiver())
