"""Errors as bytes."""

import json

import pytest

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.server.render import error_body, error_event, error_headers
from ppd_wire.errors import BadRequest, EngineFailure, Failure, NoRoute, ProxyError, Refusal
from ppd_wire.events import EventReader


def shown(error):
    return json.loads(error_body(error))["error"]


def test_an_error_has_the_shape_of_openai_with_the_proxys_reason():
    error = BadRequest("messages is missing: give a list", param="messages")
    assert json.loads(error_body(error)) == {
        "error": {
            "message": "messages is missing: give a list", "type": "invalid_request_error", "param": "messages",
            "code": 400, "reason": "bad_request",
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
        (404, "not_found_error"), (405, "invalid_request_error"), (409, "invalid_request_error"),
        (413, "request_too_large"), (502, "engine_error"), (503, "service_unavailable_error"),
        (504, "timeout_error"),
    ],
)  # fmt: skip
def test_each_status_has_a_type(status, kind):
    error = ProxyError("no", status=status, reason="x", source="proxy")
    assert (shown(error)["type"], shown(error)["code"]) == (kind, status)


def test_p15_a_503_says_when_to_come_back():
    headers = dict(error_headers(NoRoute("no engine", reason=DecisionReason.NO_PREFILL_ENGINE)))
    assert int(headers[b"retry-after"]) > 0
    assert headers[b"content-type"] == b"application/json"
    assert b"retry-after" not in dict(error_headers(EngineFailure("died", reason=Failure.ENGINE_ERROR)))


def test_a_401_says_what_is_wanted():
    error = BadRequest("no key", status=401, reason=Refusal.UNAUTHORIZED)
    assert dict(error_headers(error))[b"www-authenticate"] == b"Bearer"


def test_reasons_are_words_and_text_is_escaped():
    error = EngineFailure('the engine said "no"\n', reason=Failure.ENGINE_ERROR)
    assert shown(error)["reason"] == "engine_error"
    assert shown(error)["message"] == 'the engine said "no"\n'
    assert b"\n" not in error_body(error)  # it may become one event of a stream


def test_w4_errors_on_messages_have_the_shape_of_anthropic():
    error = BadRequest("no key", status=401, reason=Refusal.UNAUTHORIZED)
    assert json.loads(error_body(error, "messages")) == {
        "type": "error", "error": {"type": "authentication_error", "message": "no key", "reason": "unauthorized"},
    }  # fmt: skip
    for dialect in ("completion", "responses"):
        assert error_body(error, dialect) == error_body(error)


def test_w4_a_stream_that_failed_ends_with_an_event_of_its_dialect():
    error = EngineFailure("died", reason=Failure.ENGINE_ERROR)
    for dialect in ("chat", "completion"):
        assert error_event(error, dialect, 3) == b"data: " + error_body(error) + b"\n\n"
    assert error_event(error, "messages", 3) == b"event: error\ndata: " + error_body(error, "messages") + b"\n\n"
    (event,) = EventReader().feed(error_event(error, "responses", 3))
    told = json.loads(event.data)
    assert (event.name, told["type"], told["sequence_number"]) == (b"error", "error", 3)
    assert told["error"] == json.loads(error_body(error))["error"]
