"""Applications behind the bridge: those that answer badly, and what they are told of their client."""

import asyncio
import json

import pytest
from tests.support.byte_cases import CHUNKED, GET, WHOLE
from tests.support.byte_play import Application, Wire, ours
from tests.support.in_memory import settled

from ppd_proxy.server.flow import HIGH_WATER_BYTES
from ppd_proxy.server.guarding import HELD_BYTES

START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"end"}


def sending(*messages, fault=None):
    """An application that answers with these, and then fails."""

    async def application(scope, receive, send):
        for message in messages:
            await send(message)
        if fault is not None:
            raise fault

    return application


def start(*headers, status=200):
    return {**START, "status": status, "headers": headers}


async def answered(application, sent=GET):
    wire = Wire(await ours(application))
    wire.sends(sent)
    await settled()
    return wire


@pytest.mark.parametrize(
    "application",
    [
        sending(fault=ValueError("a bug")),
        sending(),
        sending(END),
        sending({"type": "websocket.accept"}),
        sending(start((b"a", b"b\r\nset-cookie: c")), END),
        sending(start((b"a b", b"c")), END),
        sending(start((b"content-length", b"-1")), END),
        sending(start(status=101), END),
    ],
)
async def test_what_never_begins_to_answer_is_an_error_of_ours(application, caplog):
    wire = await answered(application)
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["error"]["reason"] == "internal_error"
    assert wire.is_ended
    assert "path=/" in caplog.text


@pytest.mark.parametrize(
    "application",
    [
        sending(START, {**END, "more_body": True}),
        sending(START, {**END, "more_body": True}, fault=ValueError("a bug")),
        sending(START, {**END, "more_body": True}, START),
        sending(start((b"content-length", b"4")), END),
        sending(start((b"content-length", b"2")), END),
    ],
)
async def test_an_answer_that_breaks_is_seen_to_be_broken(application, caplog):
    wire = await answered(application)
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert body in (b"3\r\nend\r\n", b"")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.is_ended
    assert "path=/" in caplog.text


async def test_what_fails_behind_its_answer_takes_nothing_from_the_next(caplog):
    wire = await answered(sending(START, END, fault=ValueError("a bug")), GET + GET)
    assert wire.written.count(b"3\r\nend\r\n0\r\n\r\n") == 2
    assert not wire.is_ended
    assert "a bug" in caplog.text


async def test_an_answer_whose_status_has_no_body_gets_none():
    wire = await answered(sending(start(status=204), END), GET + GET)
    assert wire.written == b"HTTP/1.1 204 No Content\r\n\r\n" * 2


async def test_the_end_of_an_answer_is_told_once_whatever_the_application_says_of_it():
    wire = await answered(sending(start((b"Transfer-Encoding", b"chunked")), END))
    assert wire.written == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nend\r\n0\r\n\r\n"


async def test_a_client_that_is_sent_away_is_told_once():
    wire = await answered(sending(start((b"connection", b"x, Close")), END), GET + GET)
    assert wire.written.count(b"onnection: ") == wire.written.count(b"HTTP/1.1") == 1
    assert wire.is_ended


async def test_a_body_is_not_read_faster_than_it_is_asked_for():
    part = b"%x\r\n%b\r\n" % (HIGH_WATER_BYTES, b"x" * HIGH_WATER_BYTES)
    wire = Wire(await ours(Application()))
    for piece in (CHUNKED.partition(b"2\r\n")[0], part, part, part, b"0\r\n\r\n"):
        wire.sends(piece)
    assert wire.waiting == 2  # nobody has had a turn to ask
    await settled()
    assert wire.written.endswith(b"\r\n\r\nPOST " + b"x" * HIGH_WATER_BYTES * 3)


async def test_who_waits_for_its_client_to_leave_reads_no_more_of_what_is_sent_ahead():
    told, may_ask = [], asyncio.Event()

    async def application(scope, receive, send):
        await may_ask.wait()
        while not told or told[-1]["type"] != "http.disconnect":
            told.append(await receive())

    wire = Wire(await ours(application))
    for piece in (GET, *[WHOLE * (HELD_BYTES // len(WHOLE))] * 4):
        wire.sends(piece)
    may_ask.set()
    await settled()
    assert wire.waiting == 2
    wire.close()
    await settled()
    assert [message["type"] for message in told] == ["http.request", "http.disconnect"]


async def test_a_client_that_does_not_read_is_waited_for():
    sent = []

    async def application(scope, receive, send):
        for message in (START, {**END, "more_body": True}, END):
            await send(message)
            sent.append(message)

    connection = await ours(application)
    wire = Wire(connection)
    connection.pause_writing()
    wire.sends(GET)
    await settled()
    assert not sent
    connection.resume_writing()
    await settled()
    assert len(sent) == 3
    assert wire.written.endswith(b"0\r\n\r\n")


async def test_who_waits_for_a_client_that_leaves_goes_on_and_writes_nothing():
    went_on = []

    async def application(scope, receive, send):
        await send(START)
        went_on.append(True)

    connection = await ours(application)
    wire = Wire(connection)
    connection.pause_writing()
    wire.sends(GET)
    await settled()
    wire.close()
    await settled()
    assert (went_on, wire.written) == ([True], b"")
