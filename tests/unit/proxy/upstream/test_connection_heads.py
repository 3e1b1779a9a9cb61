"""What an engine sends beside its answer's body (heads, trailers, sizes of chunks) is bounded."""

import pytest
from tests.support.scripted import BODY, HEAD, OK, SSE_HEAD, chunk
from tests.support.wire import Line

from ppd_proxy.upstream.connection import MAX_HEAD_BYTES, MAX_HEADERS

PIECE = b"x" * 32768
BEGUN = SSE_HEAD + chunk(b"data: 1\n\n")
ENDLESS = {
    "value": (b"HTTP/1.1 200 OK\r\nx-long: ", PIECE),
    "name": (b"HTTP/1.1 200 OK\r\n", PIECE),
    "fields": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 6000),
    "reason": (b"HTTP/1.1 200 ", PIECE),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" * 800),
    "chunk extension": (BEGUN + b"5;", PIECE),
    "chunk extension before the body": (SSE_HEAD + b"5;", PIECE),
    "trailers": (BEGUN + b"0\r\n", b"x: y\r\n" * 6000),
    "trailer": (BEGUN + b"0\r\nx: ", PIECE),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
def test_what_never_becomes_an_answer_is_broken_off(begin, more):
    line = Line()
    receiver = line.ask()
    line.hear(begin)
    pieces = 0
    while receiver.failure is None and pieces * len(more) < 4 * MAX_HEAD_BYTES:
        line.hear(more)
        pieces += 1
    assert receiver.calls[-1] == "failure"
    assert (receiver.failure.status, receiver.failure.reason) == (502, "engine_error")
    assert line.wire.is_closed
    assert line.idle == []


@pytest.mark.parametrize(
    "fields", [b"x: y\r\n" * (MAX_HEADERS + 1), b"x: " + b"y" * 2 * MAX_HEAD_BYTES + b"\r\n"], ids=["fields", "bytes"]
)
async def test_a_head_beyond_the_bounds_is_refused_even_in_one_piece(fields):
    line = Line()
    receiver = line.ask()
    line.hear(OK.replace(b"\r\n", b"\r\n" + fields, 1))
    assert receiver.calls == ["failure"]
    assert "head of" in receiver.failure.message


def test_a_long_answer_in_small_chunks_is_no_head():
    line = Line()
    receiver = line.ask()
    line.hear(BEGUN, *[chunk(b"a")] * MAX_HEAD_BYTES, b"0\r\n\r\n")
    assert receiver.calls[-1] == "complete"


def test_the_trailers_of_one_answer_are_not_headers_of_the_next():
    line = Line()
    line.ask()
    line.hear(SSE_HEAD + chunk(b"a") + b"0\r\nset-cookie: stranger\r\n\r\n")
    receiver = line.ask()
    assert line.wire.written == 2 * (HEAD + BODY)
    line.hear(OK)
    assert [name for name, _ in receiver.headers] == [b"content-type", b"content-length"]


def test_a_head_beyond_the_bounds_on_a_reused_connection_is_an_answer_all_the_same():
    """The engine saw the request: it must not be sent again as one that nobody read."""
    line = Line()
    line.ask()
    line.hear(OK)
    receiver = line.ask()
    line.hear(OK.replace(b"\r\n", b"\r\n" + b"x: y\r\n" * (MAX_HEADERS + 1), 1))
    assert receiver.calls == ["failure"]
    assert not receiver.is_untouched
