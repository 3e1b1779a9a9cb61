"""A head that was read need not be read again: what comes out must be what the parser gives."""

import random

import pytest

from ppd_proxy.upstream.connection import Connection
from ppd_proxy.upstream.known_head import MAX_KNOWN_BYTES, KnownHead

DATE = b"Tue, 01 Dec 2026 12:00:00 GMT"
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: %b\r\nserver: uvicorn\r\n"
    b"Content-Length: 5\r\ncontent-type: application/json\r\n\r\n"
) % DATE
HEADERS = [
    (b"date", DATE), (b"server", b"uvicorn"), (b"content-length", b"5"), (b"content-type", b"application/json"),
]  # fmt: skip


class Line:
    """A connection's transport that takes everything and says nothing."""

    def __init__(self):
        self.is_closed = False

    def writelines(self, parts):
        pass

    def is_closing(self):
        return self.is_closed

    def is_reading(self):
        return True

    def get_write_buffer_size(self):
        return 0

    def close(self):
        self.is_closed = True

    abort = close


class Heard:
    """A receiver: what it was told, in words."""

    heard_at, is_answering = 1.0, True

    def __init__(self):
        self.told = []

    def on_headers(self, status, headers):
        self.told.append((status, [pair for pair in headers if pair[0] not in (b"date", b"content-length")]))

    def on_data(self, data):
        self.told.append(data)

    def on_complete(self):
        self.told.append("complete")

    def on_failure(self, failure, *, is_untouched):
        self.told.append("failed")


def connected():
    line = Line()
    connection = Connection(lambda connection: None, lambda connection: None)
    connection.connection_made(line)
    return connection, line


def told(connection, line, data):
    heard = Heard()
    connection.request(b"", b"", heard)
    connection.data_received(data)
    return heard.told, line.is_closed


def known():
    return KnownHead.of(HEAD, HEADERS)


def test_a_head_with_another_date_and_length_is_known():
    data = HEAD.replace(b"12:00:00", b"13:59:01").replace(b": 5", b": 11") + b"hello world"
    assert known().body(data) == b"hello world"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"hell",
        HEAD + b"hello!",
        HEAD.replace(b"uvicorn", b"other") + b"hello",
        HEAD.replace(b"200", b"201") + b"hello",
        HEAD.replace(b": 5", b": +5") + b"hello",
        HEAD.replace(b": 5", b": " + b"0" * 18 + b"5") + b"hello",
        HEAD.replace(b"GMT", b"GMT\r\nx: y") + b"hello",
        HEAD[:-2] + b"connection: close\r\n\r\n" + b"hello",
        HEAD[:40],
        b"",
    ],
)
def test_anything_else_is_not_known(data):
    assert known().body(data) is None


@pytest.mark.parametrize(
    ("head", "headers"),
    [
        (HEAD.replace(b"200 OK", b"404 No"), HEADERS),
        (HEAD.replace(b"Content-Length: 5\r\n", b""), [pair for pair in HEADERS if pair[0] != b"content-length"]),
        (HEAD, [*HEADERS, (b"content-length", b"5")]),
        (HEAD, [*HEADERS, (b"transfer-encoding", b"chunked")]),
        (HEAD[:-2] + b"x: " + b"y" * MAX_KNOWN_BYTES + b"\r\n\r\n", HEADERS),
    ],
    ids=["no 200", "no length", "two lengths", "chunks", "long"],
)
def test_some_heads_are_not_kept(head, headers):
    assert KnownHead.of(head, headers) is None


def test_a_connection_that_knows_the_head_tells_what_one_that_does_not_tells():
    draw = random.Random(7)
    for _ in range(3000):
        text = bytearray(HEAD + b"hello")
        for _ in range(draw.randint(0, 2)):
            place = draw.randrange(len(text))
            text[place : place + draw.randint(0, 2)] = draw.choices(b"0123456789 \r\n:,tCx", k=draw.randint(0, 2))
        data = bytes(text)
        reused = connected()
        assert told(*reused, HEAD + b"hello")[0][-1] == "complete"
        assert told(*reused, data) == told(*connected(), data), data


def test_what_differs_each_time_is_not_learned_for_ever():
    reused = connected()
    for number in range(10):
        head = HEAD[:-2] + b"x-request-id: %d\r\n\r\n" % number
        assert told(*reused, head + b"hello")[0][-1] == "complete"
