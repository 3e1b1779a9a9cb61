"""What each leg sends."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_wire.requests.asked import IDS, NOTHING, Asked
from ppd_wire.requests.bodies import decode_body, prefill_body
from ppd_wire.requests.generation import MAX_SALT_CHARS, parse

PARAMS = b'{"do_remote_prefill":true,"remote_block_ids":[[1,2]]}'
LOGPROBS = Asked(False, True)
MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'
ODD_VALUES = {
    "big": b"123456789012345678901234567890",
    "float": b"1.0E+5",
    "precise": b"0.10000000000000000000001",
    "escaped": rb'"\u00e9\ud83d\ude00\/"',
    "raw": '"é😀"'.encode(),
    "nested": rb'{"z":1,"a":[1.50,{"\u0062":null}],"z2":{"kv_transfer_params":1}}',
    "function": b'{"name":"f"}',
    "null": b"null",
}


def completion(**fields):
    return parse("completion", json.dumps({"prompt": "hi", **fields}).encode())


def chat(**fields):
    return parse("chat", json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode())


def prefilled(request, params=PARAMS):
    return json.loads(prefill_body(request, params))


def decoded(request, params=PARAMS, wanted=NOTHING, **more):
    return json.loads(decode_body(request, params, wanted, **more))


# The prefill leg: P17 to P23


def test_p17_the_prefill_leg_generates_one_token():
    assert prefilled(completion(max_tokens=500))["max_tokens"] == 1
    body = prefilled(chat(max_completion_tokens=50, max_tokens=60))
    assert (body["max_tokens"], body["max_completion_tokens"]) == (1, 1)
    assert "max_completion_tokens" not in prefilled(chat())


def test_p17_min_tokens_is_dropped_on_the_prefill_leg_only():
    request = completion(min_tokens=5, max_tokens=9)
    assert "min_tokens" not in prefilled(request)
    assert (decoded(request)["min_tokens"], decoded(request)["max_tokens"]) == (5, 9)


def test_p18_the_prefill_leg_does_not_stream():
    body = prefilled(completion(stream=True, stream_options={"include_usage": True}))
    assert not body.keys() & {"stream", "stream_options"}


def test_p18_the_prefill_leg_makes_one_choice():
    body = prefilled(completion(n=1, best_of=1))
    assert body["n"] == 1
    assert "best_of" not in body


@pytest.mark.parametrize(
    "field", ["logprobs", "top_logprobs", "prompt_logprobs", "echo", "return_token_ids", "stop", "stop_token_ids"]
)
def test_p19_p21_what_only_shapes_the_answer_is_dropped_on_the_prefill_leg(field):
    request = completion(**{field: 1})
    assert field not in prefilled(request)
    assert decoded(request)[field] == 1


@pytest.mark.parametrize("field", ["structured_outputs", "guided_json", "guided_regex", "guided_choice"])
def test_p20_a_grammar_for_the_answer_is_dropped_on_the_prefill_leg(field):
    assert field not in prefilled(chat(**{field: {"a": 1}}))


@pytest.mark.parametrize(
    "field",
    [
        "tools", "tool_choice", "response_format", "chat_template", "chat_template_kwargs", "add_generation_prompt",
        "continue_final_message", "add_special_tokens", "documents", "reasoning_effort", "mm_processor_kwargs",
        "media_io_kwargs", "truncate_prompt_tokens", "truncation_side", "cache_salt", "model", "priority",
    ],
)  # fmt: skip
def test_p20_what_may_change_the_prompt_is_the_same_on_both_legs(field):
    """The legs must render to the same token ids."""
    request = chat(**{field: {"a": [1, 2]}})
    assert prefilled(request)[field] == decoded(request)[field] == {"a": [1, 2]}
    assert prefilled(request)["messages"] == decoded(request)["messages"]


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
def test_p22_unknown_fields_survive_byte_for_byte_on_both_legs(value):
    request = parse("chat", b'{"z":1,"odd":' + value + b"," + MESSAGES + b',"a":2,"stream":true}')
    decode = [decode_body(request, params, NOTHING) for params in (PARAMS, None)]
    for body in (prefill_body(request, PARAMS), *decode):
        assert b'"odd":' + value + b"," in body
        assert list(json.loads(body))[:4] == ["z", "odd", "messages", "a"]


def test_p22_fields_inside_messages_survive_byte_for_byte():
    messages = rb'[{"role":"user","content":[{"type":"text","text":"\u00e9","x":1.0E2}],"n":12345678901234567890123}]'
    request = parse("chat", b'{"messages":' + messages + b"}")
    assert messages in prefill_body(request, PARAMS)
    assert messages in decode_body(request, PARAMS, NOTHING)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(extra=st.dictionaries(st.text().map(lambda name: "x" + name), JSON, max_size=4), ascii_only=st.booleans())
def test_p22_any_unknown_field_survives_on_both_legs(extra, ascii_only):
    extra = json.loads(json.dumps(extra, ensure_ascii=False).encode(errors="replace"))
    raw = json.dumps({"prompt": "hi", **extra}, ensure_ascii=ascii_only).encode()
    request = parse("completion", raw)
    assert decode_body(request, None, NOTHING) == raw
    for body in (prefilled(request), decoded(request)):
        assert {name: body[name] for name in extra} == extra


def test_p23_a_body_without_max_tokens_is_served():
    request = chat()
    assert prefilled(request)["max_tokens"] == 1
    assert "max_tokens" not in decoded(request)


def test_the_handoffs_parameters_are_put_in_as_they_are():
    assert PARAMS in prefill_body(completion(), PARAMS)
    assert PARAMS in decode_body(completion(), PARAMS, NOTHING)
    assert b"kv_transfer_params" not in prefill_body(completion(), None)


# The decode leg


def test_p32_a_body_without_anything_to_change_is_sent_as_it_came():
    raw = b' {"prompt" : "hi",\n"x":1.0,"x":2}\n'
    assert decode_body(parse("completion", raw), None, NOTHING) is raw
    raw = b'{"prompt":"hi","stream":true,"stream_options":{"include_usage":true}}'
    assert decode_body(parse("completion", raw), None, NOTHING) is raw


def test_p27_a_stream_asks_for_usage_and_knows_whether_the_client_did():
    quiet = completion(stream=True)
    assert decoded(quiet)["stream_options"] == {"include_usage": True}
    assert not quiet.wants_usage
    asked = completion(stream=True, stream_options={"include_usage": True})
    assert asked.wants_usage
    declined = completion(stream=True, stream_options={"include_usage": False})
    assert not declined.wants_usage
    assert decoded(declined)["stream_options"] == {"include_usage": True}


def test_p27_the_clients_other_stream_options_are_kept_byte_for_byte():
    raw = (
        rb'{"prompt":"hi","stream":true,"stream_options":{"f":1.0E+5,"n":123456789012345678901234567890,"u":"\u00e9"}}'
    )
    body = decode_body(parse("completion", raw), None, NOTHING)
    assert b'"f":1.0E+5' in body
    assert b'"n":123456789012345678901234567890' in body
    assert rb'"u":"\u00e9"' in body
    assert json.loads(body)["stream_options"]["include_usage"] is True


def test_stream_options_of_null_are_as_none_at_all():
    assert decoded(completion(stream=True, stream_options=None))["stream_options"] == {"include_usage": True}


def test_a_request_without_stream_gets_no_stream_options():
    assert "stream_options" not in decoded(completion())


# The decode leg: what the proxy asks for


def test_p32_what_is_asked_is_added_and_nothing_else_changes():
    raw = b'{"prompt":"hi","x":1.0}'
    assert decode_body(parse("completion", raw), None, IDS) == b'{"prompt":"hi","x":1.0,"return_token_ids":true}'
    assert decoded(completion(), None, Asked(True, True)) == {"prompt": "hi", "return_token_ids": True, "logprobs": 0}


def test_logprobs_are_asked_in_the_endpoints_own_way():
    for top, named in ((0, {}), (3, {"return_tokens_as_token_ids": True})):
        assert decoded(completion(), None, LOGPROBS, top_logprobs=top) == {"prompt": "hi", "logprobs": top, **named}
        body = decoded(chat(logprobs=False), None, LOGPROBS, top_logprobs=top)
        assert (body["logprobs"], body["top_logprobs"]) == (True, top)
        assert "return_token_ids" not in body


def test_a_salt_stands_before_the_clients_own():
    assert decoded(completion(), None, NOTHING, salt="e1") == {"prompt": "hi", "cache_salt": "e1"}
    assert decoded(completion(cache_salt=None), None, NOTHING, salt="e1")["cache_salt"] == "e1"
    assert decoded(completion(cache_salt="mine"), None, NOTHING, salt="e1")["cache_salt"] == "e1:mine"
    assert decoded(completion(cache_salt="mine"), None)["cache_salt"] == "mine"


def test_two_salts_stay_within_what_an_engine_takes_and_apart():
    salts = {decoded(completion(cache_salt="s" * 127 + last), None, NOTHING, salt="e1")["cache_salt"] for last in "ab"}
    assert len(salts) == 2
    assert all(salt.startswith("e1:") and len(salt) <= 128 for salt in salts)


@pytest.mark.parametrize("salt", ["", 5, ["a"]])
def test_a_salt_that_an_engine_refuses_is_left_for_it_to_refuse(salt):
    assert decoded(completion(cache_salt=salt), None, NOTHING, salt="e1")["cache_salt"] == salt


# Cache salts of the proxy's own


def salt_of(body):
    return json.loads(body)["cache_salt"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, "ppd-1"), ({"cache_salt": None}, "ppd-1"), ({"cache_salt": "mine"}, "ppd-1:mine")],
    ids=["none", "null", "own"],
)
def test_the_salt_goes_before_the_clients_own(fields, expected):
    assert salt_of(decode_body(chat(**fields), None, NOTHING, salt="ppd-1")) == expected
    assert salt_of(prefill_body(chat(**fields), PARAMS, salt="ppd-1")) == expected


@pytest.mark.parametrize("own", ["", 5, ["a"], "a/b" * 40, "x" * (MAX_SALT_CHARS + 1)])
def test_a_client_salt_that_the_engine_refuses_stays_one(own):
    salt = salt_of(decode_body(chat(cache_salt=own), None, NOTHING, salt="ppd-1"))
    assert salt == own or salt == f"ppd-1:{own}"


def test_a_salt_that_would_be_too_long_keeps_clients_apart():
    salts = {salt_of(decode_body(chat(cache_salt=own * 128), None, NOTHING, salt="ppd-1")) for own in "ab"}
    assert len(salts) == 2
    assert all(salt.startswith("ppd-1:") and len(salt) <= MAX_SALT_CHARS for salt in salts)


def test_a_salt_changes_nothing_else():
    request = completion(temperature=0.5, odd=[1.50])
    assert json.loads(decode_body(request, PARAMS, NOTHING, salt="s")) == {**decoded(request), "cache_salt": "s"}
