"""What is counted and logged of requests that do not go by the data path."""

import pytest
from tests.support.builders import KEY, decode
from tests.support.parts import Parts

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.server.bodies import BODY_KEY
from ppd_proxy.server.noting import GONE_STATUS, Noting, note_passed_on, note_refused
from ppd_wire.errors import BadRequest, EngineFailure, Failure, Refusal


@pytest.fixture
def parts():
    return Parts()


async def noted(parts, app, **scope):
    """The record of a request to `app`; None where it was not noted."""
    sent = []

    async def send(message):
        sent.append(message)

    noting = Noting(app, parts.control, parts.observer, lambda: KEY, parts.clock)
    await noting({"type": "http", "path": "/v1/x", **scope}, None, send)
    records = [record for [record] in parts.observer.of("finished")]
    assert len(records) == len(parts.observer.of("decided")) <= 1
    return records[0] if records else None


def answering(note, status=200, failure=None):
    async def app(scope, receive, send):
        note(scope)
        if status:
            await send({"type": "http.response.start", "status": status})
        if failure is not None:
            raise failure

    return app


async def test_what_is_passed_on_is_noted_with_its_engine_and_model(parts):
    app = answering(lambda scope: note_passed_on(scope, decode()))
    record = await noted(parts, app, raw_path=b"/v1/x?a=1", **{BODY_KEY: b'{"model":"m"}'})
    assert (record.reason, record.decode_id, record.status) == (DecisionReason.PASSED_ON, "d1:8000", 200)
    assert (record.path, record.model, record.is_client_gone, record.error) == (b"/v1/x?a=1", b'"m"', False, None)
    assert parts.observer.of("decided") == [["ppd", "none", DecisionReason.PASSED_ON]]


async def test_what_is_refused_is_noted_with_its_reason(parts):
    record = await noted(parts, answering(lambda scope: note_refused(scope, BadRequest("no")), 400))
    assert (record.reason, record.error, record.status) == (Refusal.BAD_REQUEST, "no", 400)


async def test_what_the_proxy_answers_itself_is_not_noted(parts):
    assert await noted(parts, answering(lambda scope: None)) is None


async def test_a_client_that_left_before_any_answer_is_noted_as_gone(parts):
    record = await noted(parts, answering(lambda scope: note_passed_on(scope, decode()), status=0))
    assert (record.is_client_gone, record.status) == (True, GONE_STATUS)


async def test_an_engine_that_fails_in_the_middle_is_an_error_of_the_record(parts):
    failure = EngineFailure("died", reason=Failure.ENGINE_ERROR)
    record = await noted(parts, answering(lambda scope: note_passed_on(scope, decode()), failure=failure))
    assert (record.error, record.status) == ("died", 200)


def test_outside_of_it_nothing_is_noted():
    note_passed_on({}, decode())
    note_refused({}, BadRequest("no"))
