"""The rules for what a client may send, without a socket: the same requests however the bytes are cut."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppd_proxy.server import guarding
from ppd_proxy.server.client_limits import ClientLimits
from ppd_proxy.server.guarding import FRAMING_BYTES, HELD_BYTES, TAKEN_BYTES, ClientGuard, ReadPhase
from ppd_proxy.server.heads import MAX_FIELDS, read_head
from ppd_wire.errors import BadRequest

LIMITS = ClientLimits(max_head_bytes=2048, keep_alive_s=75, head_timeout_s=10, body_timeout_s=30, write_timeout_s=60)
GET = b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;ext=\"x\"\r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n"
)  # fmt: skip
PLAIN_CHUNKED = b"POST /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
REQUESTS = {
    b"/health": (GET, b""),
    b"/p": (POST, b"hello"),
    b"/c": (CHUNKED, b"hello"),
    b"/d": (PLAIN_CHUNKED, b"hello"),
}


def read(guard, pieces):
    """The requests in `pieces`, each answered as soon as it is whole: path and body; a refusal's status ends them."""
    found, body, head = [], b"", None
    for piece in pieces:
        guard.feed(piece, 0.0)
        while True:
            try:
                if guard.phase is ReadPhase.HEAD:
                    head = guard.head(0.0)
                    if head is None:
                        break
                    body = b""
                if guard.phase is not ReadPhase.WHOLE:
                    body += guard.body()
            except BadRequest as error:
                return [*found, error.status]
            if guard.phase is not ReadPhase.WHOLE:
                break
            found.append((head.path, body))
            guard.answered(0.0)
    return found


def cut(data, places):
    return [data[start:end] for start, end in pairwise([0, *sorted(places), len(data)])]


@given(data=st.data(), names=st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_requests_are_the_same_however_their_bytes_are_cut(data, names):
    sent = b"".join(REQUESTS[name][0] for name in names)
    places = data.draw(st.lists(st.integers(0, len(sent)), max_size=12))
    assert read(ClientGuard(LIMITS, 0.0), cut(sent, places)) == [(name, REQUESTS[name][1]) for name in names]


@given(
    data=st.data(),
    sent=st.lists(
        st.sampled_from([
            b"\r\n", b"\n", b"\r", b"GET / HTTP/1.1", b"POST /p HTTP/1.1", b"Host: a", b"Content-Length: 3", b" ", b":",
            b"Transfer-Encoding: chunked", b"0", b"3", b"abc", b"\0", b"\xff", b";x", b"Connection: close", GET,
            CHUNKED,
        ]),
        max_size=20,
    ),
)  # fmt: skip
@settings(max_examples=600, deadline=None)
def test_what_is_read_of_any_bytes_does_not_depend_on_where_they_are_cut(data, sent):
    """Also whether they are refused, and after how many requests."""
    whole = b"".join(sent)
    places = data.draw(st.lists(st.integers(0, len(whole)), max_size=8))
    assert read(ClientGuard(LIMITS, 0.0), cut(whole, places)) == read(ClientGuard(LIMITS, 0.0), [whole])


@given(sent=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_or_waited_for(sent):
    for found in read(ClientGuard(LIMITS, 0.0), [sent]):
        assert isinstance(found, tuple) or found in (400, 405, 414, 431, 505)


def test_a_request_is_read_only_when_the_one_before_is_answered():
    guard = ClientGuard(LIMITS, 0.0)
    guard.feed(GET + POST, 0.0)
    assert guard.head(0.0).path == b"/health"
    assert guard.is_whole
    assert guard.body() == b""
    assert not guard.is_full
    guard.feed(b"x" * HELD_BYTES, 0.0)
    assert guard.is_full
    guard.answered(0.0)
    assert guard.head(0.0).path == b"/p"


def test_a_head_says_what_an_application_needs():
    head = read_head(b"POST /a%20b?c=d HTTP/1.1\r\nHost: a\r\nX-Y: \t z \r\nExpect: 100-continue\r\nContent-Length: 7")
    assert (head.method, head.path, head.query, head.version) == ("POST", b"/a%20b", b"c=d", "1.1")
    assert head.headers == [(b"host", b"a"), (b"x-y", b"z"), (b"expect", b"100-continue"), (b"content-length", b"7")]
    assert (head.length, head.keeps_alive, head.awaits_continue) == (7, True, True)


@pytest.mark.parametrize(
    ("fields", "keeps_alive"),
    [
        (b"Connection: close", False),
        (b"connection: keep-alive, CLOSE", False),
        (b"Connection: a\r\nConnection: Close", False),
        (b"Connection: closed", True),
        (b"Connection: Upgrade", True),
        (b"", True),
    ],
)
def test_a_client_may_ask_for_the_end_of_its_connection(fields, keeps_alive):
    assert read_head(b"GET / HTTP/1.1\r\nHost: a" + b"\r\n" * bool(fields) + fields).keeps_alive is keeps_alive


def test_each_wait_has_its_own_time():
    guard = ClientGuard(LIMITS, 100.0)
    assert guard.due_at == 175
    assert guard.late() is None
    guard.feed(b"P", 101.0)
    guard.feed(POST[1:20], 105.0)
    assert guard.head(105.0) is None
    assert guard.due_at == 111  # a head's time does not begin anew
    assert "--head-timeout-s" in guard.late().message
    guard = ClientGuard(LIMITS, 100.0)
    guard.feed(POST[:-2], 101.0)
    guard.head(101.0)
    assert guard.body() == b"hel"
    assert guard.due_at == 131
    guard.feed(b"l", 120.0)
    guard.body()
    assert guard.due_at == 150
    assert "--body-timeout-s" in guard.late().message
    guard = ClientGuard(LIMITS, 100.0)
    guard.feed(GET, 101.0)
    guard.head(101.0)
    assert guard.due_at == math.inf  # the answer is ours to give
    guard.feed(b"G", 102.0)
    assert guard.due_at == math.inf
    guard.answered(200.0)
    assert guard.due_at == 210  # what was sent ahead has its time from now on


def test_line_ends_alone_begin_a_head_that_nobody_is_told_of():
    guard = ClientGuard(LIMITS, 100.0)
    guard.feed(b"\r\n", 101.0)
    assert guard.head(101.0) is None
    assert guard.due_at == 111
    assert guard.late() is None


def test_a_client_stalls_when_none_of_its_answer_leaves():
    guard = ClientGuard(LIMITS, 0.0)
    assert not guard.is_stalled(0, 1000.0)
    assert not guard.is_stalled(90_000, 1001.0)
    assert not guard.is_stalled(90_000, 1060.0)
    assert not guard.is_stalled(90_000 - TAKEN_BYTES, 1060.0)
    assert not guard.is_stalled(60_000, 1119.0)
    assert guard.is_stalled(60_000, 1120.0)  # a byte now and then is no reading
    assert not guard.is_stalled(100_000, 1121.0)  # a stream's new bytes
    assert not guard.is_stalled(0, 2000.0)


def test_the_framing_of_a_body_is_bounded():
    guard = ClientGuard(LIMITS, 0.0)
    guard.feed(b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 0.0)
    assert guard.head(0.0).length is None
    guard.feed(b"1\r\nx\r\n" * FRAMING_BYTES, 0.0)
    with pytest.raises(BadRequest, match="too small"):
        guard.body()


def test_fields_are_bounded_in_number():
    assert len(read_head(b"GET / HTTP/1.0" + b"\r\nA: b" * MAX_FIELDS).headers) == MAX_FIELDS
    with pytest.raises(BadRequest) as caught:
        read_head(b"GET / HTTP/1.1" + b"\r\nA: b" * (MAX_FIELDS + 1))
    assert caught.value.status == 431


def test_small_chunks_cost_the_loop_little_each(monkeypatch):
    """Tens of thousands are here at once; what is read past one by one is a handful, whatever their size."""
    read_singly = []
    pattern = guarding._CHUNK_LINE

    class Counting:
        def fullmatch(self, *where):
            read_singly.append(where)
            return pattern.fullmatch(*where)

    monkeypatch.setattr(guarding, "_CHUNK_LINE", Counting())
    for size in (5, 10, 300):
        guard = ClientGuard(LIMITS, 0.0)
        guard.feed(b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 0.0)
        guard.head(0.0)
        read_singly.clear()
        guard.feed(b"%x\r\n%b\r\n" % (size, b"x" * size) * 1000 + b"5\r", 0.0)
        assert guard.body() == b"x" * size * 1000
        guard.feed(b"\nyyyyy\r\n0\r\n\r\n", 0.0)
        assert guard.body() == b"yyyyy"
        assert guard.is_whole
        assert len(read_singly) <= 3
