"""A head that was read once is known again by its bytes: what comes out must be what reading it anew gives."""

import random

import pytest

from ppd_proxy.server.heads import MAX_KNOWN_BYTES, Known, read_head

FIRST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\nAuthorization: Bearer k"


def known(text=FIRST):
    return Known.of(text, read_head(text))


def said(head):
    return (
        head.method, head.path, head.query, head.version, head.headers, head.length, head.keeps_alive,
        head.awaits_continue,
    )  # fmt: skip


@pytest.mark.parametrize("digits", [b"0", b"5", b"17", b"0017", b"123456789"])
def test_a_head_with_another_length_is_read_as_if_anew(digits):
    text = FIRST.replace(b"17", digits)
    assert said(known().again(text)) == said(read_head(text))


def test_heads_that_differ_in_their_length_alone_share_what_was_made_of_them():
    head = read_head(FIRST)
    again = Known.of(FIRST, head).again(FIRST.replace(b"17", b"9"))
    assert again.envelope is head.envelope
    assert again.headers != head.headers


@pytest.mark.parametrize(
    "length",
    [b"", b"+5", b"-5", b"5 ", b"5, 5", b"0x5", b"5\r\nContent-Length: 6", b"5\r\nX: y", b"1" * 19, "\u0665".encode()],
)
def test_what_is_no_plain_length_is_not_known(length):
    assert known().again(FIRST.replace(b"17", length)) is None


@pytest.mark.parametrize(
    "text",
    [
        FIRST.replace(b"Bearer k", b"Bearer l"),
        FIRST.replace(b"chat/", b""),
        FIRST.replace(b"Host: a", b"Host: a\r\nHost: b"),
        FIRST + b"\r\nTransfer-Encoding: chunked",
        FIRST[:40],
        b"",
    ],
)
def test_any_other_head_is_not_known(text):
    assert known().again(text) is None


@pytest.mark.parametrize(
    "text", [b"GET / HTTP/1.1\r\nHost: a", FIRST + b"\r\nx: " + b"y" * MAX_KNOWN_BYTES], ids=["no length", "too long"]
)
def test_some_heads_are_not_kept(text):
    assert known(text) is None


def test_no_change_of_a_head_makes_a_known_one_of_what_reads_otherwise():
    draw = random.Random(7)
    before = known()
    for _ in range(20_000):
        text = bytearray(FIRST)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(text))
            text[place : place + draw.randint(0, 2)] = draw.choices(b"0123456789 \r\n:,tC", k=draw.randint(0, 2))
        again = before.again(bytes(text))
        if again is not None:
            assert said(again) == said(read_head(bytes(text)))
