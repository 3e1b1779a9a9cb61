"""What engines are told of KV and of ids is the proxy's alone: a client's own never gets into a leg's body."""

import json

import pytest

from ppd_wire.requests.asked import NOTHING
from ppd_wire.requests.bodies import decode_body, prefill_body
from ppd_wire.requests.generation import parse
from ppd_wire.requests.opaque import opaque_body, parse_opaque

EVIL = '{"do_remote_prefill":true,"remote_host":"evil"}'
TAG = '"___prefill_addr_evil:1___decode_addr_evil:2_00000000000000000000000000000000"'
SMUGGLED = {
    "kv": f'"kv_transfer_params":{EVIL}',
    "ec": f'"ec_transfer_params":{EVIL}',
    "any other": f'"evil_transfer_params":{EVIL}',
    "null": '"kv_transfer_params":null,"evil":1',
    "id": f'"request_id":{TAG}',
    "escaped": rf'"kv\u005ftransfer_params":{EVIL},"re\u0071uest_id":{TAG}',
    "twice": f'"kv_transfer_params":{EVIL},"kv_transfer_params":null,"request_id":{TAG},"request_id":"evil"',
    "arguments": f'"vllm_xargs":{{"kept":1,"kv_transfer_params":{EVIL},"request_id":{TAG}}}',
    "escaped arguments": rf'"vllm\u005fxargs":{{"kept":1,"ec\u005ftransfer_params":{EVIL}}}',
    "arguments twice": f'"vllm_xargs":{{"kv_transfer_params":{EVIL}}},"vllm_xargs":{{"kept":1}}',
    "arguments twice, evil last": f'"vllm_xargs":{{"kept":2}},"vllm_xargs":{{"kept":1,"kv_transfer_params":{EVIL}}}',
    "twice within": f'"vllm_xargs":{{"kv_transfer_params":{EVIL},"kept":1,"kv_transfer_params":{EVIL}}}',
    "extra": f'"extra_args":{{"kept":1,"kv_transfer_params":{EVIL}}}',
    "sampling": f'"sampling_params":{{"extra_args":{{"kept":1,"kv_transfer_params":{EVIL}}},"request_id":{TAG}}}',
    "sampling with arguments": f'"sampling_params":{{"vllm_xargs":{{"kept":1,"ec_transfer_params":{EVIL}}}}}',
}


def legs(text):
    """Every body that any endpoint makes of a client's fields."""
    chat = parse("chat", f'{{"messages":[{{"role":"user","content":"hi"}}],{text}}}'.encode())
    raw = parse("completion", f'{{"prompt":"hi",{text}}}'.encode())
    for generation in (chat, raw):
        yield prefill_body(generation, None)
        yield prefill_body(generation, None, salt="s")
        yield decode_body(generation, None, NOTHING)
        yield decode_body(generation, None, NOTHING, salt="s")
    opaque = parse_opaque(f'{{"input":"hi",{text}}}'.encode())
    yield opaque_body(opaque, salt=None, request_id=None)
    yield opaque_body(opaque, salt="s", request_id=None)


@pytest.mark.parametrize("text", SMUGGLED.values(), ids=SMUGGLED)
def test_handoff_parameters_and_ids_of_a_client_reach_no_leg(text):
    for body in legs(text):
        sent = json.loads(body)
        assert "_params" not in "".join(sent) or set(sent) & {"sampling_params"}
        assert "request_id" not in sent
        assert b"remote_host" not in body
        assert b"___prefill_addr_" not in body
        if "kept" in text:
            arguments = sent.get("vllm_xargs") or sent.get("extra_args") or sent["sampling_params"]
            assert (arguments.get("extra_args") or arguments.get("vllm_xargs") or arguments)["kept"] == 1


@pytest.mark.parametrize("text", ['"vllm_xargs":5', '"vllm_xargs":null', '"extra_args":[1,{"a":2}]'])
def test_arguments_that_are_none_are_left_for_the_engine_to_refuse(text):
    name, _, value = text.partition(":")
    for body in legs(text):
        assert json.loads(body)[json.loads(name)] == json.loads(value)


def test_arguments_keep_their_values_byte_for_byte():
    text = '"vllm_xargs":{"a":1.50,"b":123456789012345678901234567890,"c":[1,{"kv_transfer_params":2}]}'
    for body in legs(text):
        assert text.partition(":")[2].encode() in body


def test_what_looks_like_a_tag_in_the_prompt_stays_text():
    said = f"what is {json.loads(TAG)}, kv_transfer_params and request_id?"
    body = json.dumps({"messages": [{"role": "user", "content": said, "request_id": "x"}], "user": said}).encode()
    generation = parse("chat", body)
    assert decode_body(generation, None, NOTHING) is body
    assert json.loads(prefill_body(generation, None))["messages"][0]["content"] == said


def test_a_body_without_anything_of_ours_is_sent_as_it_came():
    body = b'{ "prompt" : "hi", "n": 1 }'
    assert decode_body(parse("completion", body), None, NOTHING) is body
    assert parse_opaque(body).body is body


def test_arguments_within_arguments_are_not_followed_for_ever():
    depth = 100_000
    text = '"vllm_xargs":' + '{"vllm_xargs":' * depth + "1" + "}" * depth
    with pytest.raises(Exception, match="JSON object"):
        list(legs(text))
    shallow = '"vllm_xargs":' + '{"vllm_xargs":' * 500 + "1" + "}" * 500
    assert all(json.loads(body)["vllm_xargs"] for body in legs(shallow))
