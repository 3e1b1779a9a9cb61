"""Bodies that are passed on without being interpreted."""

import json

import pytest

from ppd_wire.errors import BadRequest
from ppd_wire.requests.opaque import opaque_body, parse_opaque


def test_an_endpoint_that_is_not_read_keeps_its_body():
    raw = b'{ "input":"hi", "stream": true}'
    request = parse_opaque(raw)
    assert request.body is raw
    assert request.is_stream


@pytest.mark.parametrize("fields", [{}, {"cache_salt": None}, {"cache_salt": "mine"}], ids=["none", "null", "own"])
def test_the_salt_goes_before_the_clients_own(fields):
    request = parse_opaque(json.dumps({"input": "hi", **fields}).encode())
    own = f":{fields['cache_salt']}" if fields.get("cache_salt") else ""
    body = json.loads(opaque_body(request, salt="ppd-1", request_id=None))
    assert body == {"input": "hi", "cache_salt": f"ppd-1{own}"}


def test_an_id_takes_the_place_of_any_other_and_the_rest_stays_byte_for_byte():
    request = parse_opaque(b'{"input":"hi","n":1.50,"request_id":"mine"}')
    assert opaque_body(request, salt=None, request_id="r1") == b'{"input":"hi","n":1.50,"request_id":"r1"}'
    assert opaque_body(request, salt=None, request_id=None) == b'{"input":"hi","n":1.50}'


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"input":'])
def test_what_is_no_json_object_is_a_bad_request(body):
    with pytest.raises(BadRequest):
        parse_opaque(body)
