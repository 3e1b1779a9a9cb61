"""What the client sees of an engine's answer."""

import json

import pytest

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.request.answering import own_headers, shown_body, unseen_error, unseen_headers
from ppd_proxy.request.record import Record
from ppd_wire.requests.asked import NOTHING

HIDDEN, PUBLIC = b"a" * 32, b"b" * 32
IDS = {"hidden_id": HIDDEN, "public_id": PUBLIC}


def test_every_answer_says_where_it_comes_from():
    record = Record(request_id="x", mode="ppd", received_at=0.0)
    record.route, record.reason, record.turn = "direct", DecisionReason.KNOWN_HISTORY, 3
    assert own_headers(record, "mine") == [
        (b"x-ppd-decision", b"direct;reason=known_history;turn=3"),
        (b"x-request-id", b"mine"),
    ]


def test_an_answer_has_the_public_id_and_not_the_engines():
    body = shown_body(200, b'{"id":"chatcmpl-%b","choices":[]}' % HIDDEN, **IDS, asked=NOTHING)
    assert json.loads(body)["id"] == f"chatcmpl-{PUBLIC.decode()}"


def test_an_error_of_openais_form_is_shown():
    body = b'{"error":{"message":"too long","type":"BadRequestError","code":400}}'
    assert json.loads(shown_body(400, body, **IDS, asked=NOTHING))["error"]["message"] == "too long"


def test_any_other_error_is_told_in_the_proxys_words():
    page = b"<html>%b</html>" % HIDDEN
    assert shown_body(502, page, **IDS, asked=NOTHING) is None
    error = unseen_error(502, page, hidden_id=HIDDEN, shown_status=502)
    assert error.status == 502
    assert HIDDEN.decode() not in error.message


@pytest.mark.parametrize(("status", "names"), [(429, [b"x-own", b"retry-after"]), (503, [b"x-own"])])
def test_when_to_come_again_is_the_engines_word_unless_the_proxy_has_one(status, names):
    headers = [(b"retry-after", b"7"), (b"x-engine", b"1")]
    assert [name for name, _ in unseen_headers(headers, [(b"x-own", b"1")], status)] == names
