"""Request bodies that say what no client may say, and bodies that say nothing at all."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_wire.errors import BadRequest
from ppd_wire.requests.asked import NOTHING
from ppd_wire.requests.bodies import decode_body, prefill_body
from ppd_wire.requests.generation import parse
from ppd_wire.requests.opaque import opaque_body, parse_opaque

PARAMS = b'{"do_remote_prefill":true,"remote_block_ids":[[1,2]]}'

# What no client may send


@pytest.mark.parametrize(
    "field",
    [
        b'"kv_transfer_params":{"remote_host":"evil"}',
        rb'"kv\u005ftransfer\u005fparams":{"remote_host":"evil"}',
        b'"kv_transfer_params":1,"kv_transfer_params":{"remote_host":"evil"}',
        b'"vllm_xargs":{"kv_transfer_params":{"remote_host":"evil"}}',
        rb'"vllm_xargs":{"kv\u005ftransfer_params":{"remote_host":"evil"}}',
    ],
)
def test_p28_a_clients_own_kv_parameters_are_dropped_in_every_spelling(field):
    request = parse("completion", b'{"prompt":"hi",' + field + b"}")
    for body in (decode_body(request, None, NOTHING), prefill_body(request, None)):
        assert b"evil" not in body
        assert json.loads(body)["prompt"] == "hi"
    assert json.loads(decode_body(request, PARAMS, NOTHING))["kv_transfer_params"] == json.loads(PARAMS)
    request = parse_opaque(b'{"input":"hi",' + field + b"}")
    assert b"evil" not in request.body
    assert b"evil" not in opaque_body(request, salt="s", request_id="r")


def test_other_extra_arguments_survive_the_removal_byte_for_byte():
    raw = rb'{"prompt":"hi","vllm_xargs":{"f":1.0E+5,"kv_transfer_params":{},"n":123456789012345678901234567890}}'
    body = decode_body(parse("completion", raw), None, NOTHING)
    assert b"kv_transfer_params" not in body
    assert b'"f":1.0E+5' in body
    assert b'"n":123456789012345678901234567890' in body


def test_extra_arguments_of_any_other_form_are_left_to_the_engine():
    raw = b'{"prompt":"hi","vllm_xargs":[1,{"kv_transfer_params":2}]}'
    assert decode_body(parse("completion", raw), None, NOTHING) == raw


def test_stripped_fields_are_taken_out_of_both_legs():
    raw = b'{"prompt":"hi","conversation_id":"c","x":1.0}'
    request = parse("completion", raw, frozenset({"conversation_id", "absent"}))
    assert decode_body(request, None, NOTHING) == b'{"prompt":"hi","x":1.0}'
    assert b"conversation_id" not in prefill_body(request, PARAMS)
    request = parse_opaque(raw, frozenset({"x"}))
    assert (request.body, request.is_stream) == (b'{"prompt":"hi","conversation_id":"c"}', False)


# Bad input


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"text"', b"{", b'{"prompt":"a",}', b'{"prompt":"a"} x', b'{"prompt":"a","x":NaN}',
        b'{"prompt":"a","x":' + b"[" * 100_000, b'{"prompt":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "\ufeff{}".encode(), '{"prompt":"a"}'.encode("utf-16"), b'{"prompt":"a","vllm_xargs":"\\ud800"}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_a_bad_request(body):
    with pytest.raises(BadRequest, match="JSON object") as caught:
        parse("completion", body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("chat", b"{}", "messages"),
        ("chat", b'{"messages":null}', "messages"),
        ("chat", b'{"messages":"hi"}', "messages"),
        ("chat", b'{"messages":[1]}', "messages"),
        ("chat", b'{"messages":[{"role":"user","content":1e999}]}', "messages"),
        ("completion", b"{}", "prompt"),
        ("completion", b'{"prompt":null}', "prompt"),
        ("completion", b'{"prompt":{}}', "prompt"),
        ("completion", b'{"prompt":[1.5]}', "prompt"),
        ("completion", b'{"prompt":[true]}', "prompt"),
        ("completion", b'{"prompt":[[1,"a"]]}', "prompt"),
    ],
)
def test_a_bad_request_names_the_field(kind, body, param):
    with pytest.raises(BadRequest) as caught:
        parse(kind, body)
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("completion", b'{"prompt":"\xff"}'),
        ("completion", b'{"\xff":1,"prompt":"a"}'),
        ("chat", b'{"messages":[{"role":"user","content":"\xc3"}]}'),
    ],
)
def test_text_that_is_no_utf_8_is_a_bad_request(kind, body):
    with pytest.raises(BadRequest):
        parse(kind, body)


@pytest.mark.parametrize("name", ["stream_options", "vllm_xargs"])
@pytest.mark.parametrize(
    "value",
    [b'{"x":1e999}', b'{"\xff":1}', b'{"x":"\xff"}', b'"\xff"', b"1e999", b"[[]]", rb'"\ud800"', b'{"x":-1e-999}'],
)
def test_odd_options_are_passed_on_or_refused_but_break_nothing(name, value):
    raw = b'{"prompt":"a","kv_transfer_params":1,"stream":true,"%b":%b}' % (name.encode(), value)
    with suppress(BadRequest):
        decode_body(parse("completion", raw), PARAMS, NOTHING)
    with suppress(BadRequest):
        parse_opaque(raw)


TEXTS = st.text(max_size=40).map(lambda text: b'{"prompt":"' + text.encode(errors="ignore"))


@given(body=st.binary(max_size=60) | TEXTS)
def test_no_body_gives_another_error_than_a_bad_request(body):
    with suppress(BadRequest):
        parse("completion", body)
