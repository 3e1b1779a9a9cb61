"""Taking out what only the proxy asked for. The bodies are what vLLM 0.32's own classes wrote."""

import pytest

from ppd_wire.answers.removal import take_out
from ppd_wire.requests.asked import IDS, Asked

ALL = Asked(True, True)
LOGPROBS = Asked(False, True)
CHAT_SCORES = (
    '{"content":[{"token":"é\\"}","logprob":-0.5,"bytes":[1],"top_logprobs":[{"token":"a","logprob":-1.0,"bytes":[2]}]},'
    '{"token":"x","bytes":[3]}]}'
)
TEXT_SCORES = '{"text_offset":[0],"token_logprobs":[-0.5],"tokens":["é"],"top_logprobs":[{"é":-0.5}]}'
ANSWERS = {
    "chat chunk": (
        '{"id":"i","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
        '"delta":{"content":"é \u2028 </s>"},"logprobs":SCORES,"finish_reason":null,"token_ids":IDS}]}'
    ),
    "chat end": (
        '{"id":"i","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},'
        '"logprobs":SCORES,"finish_reason":"stop","stop_reason":null,"token_ids":IDS}],"usage":{"prompt_tokens":1}}'
    ),
    "chat role": (
        '{"id":"i","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
        '{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":IDS,'
        '"prompt_text":null}'
    ),
    "chat": (
        '{"id":"i","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
        '{"role":"assistant","content":"é","refusal":null,"annotations":null,"audio":null,"function_call":null,'
        '"tool_calls":[{"id":"t","type":"function","function":{"name":"n","arguments":"{\\"logprobs\\":1}"}}],'
        '"reasoning":"r"},"logprobs":SCORES,"finish_reason":"stop","stop_reason":null,"token_ids":IDS,'
        '"routed_experts":null}],"service_tier":null,"system_fingerprint":null,"usage":{"prompt_tokens":0},'
        '"prompt_logprobs":null,"prompt_token_ids":IDS,"prompt_text":null,"ec_transfer_params":null,"metrics":null}'
    ),
    "completion chunk": (
        '{"id":"i","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"é","logprobs":SCORES,'
        '"finish_reason":null,"stop_reason":null,"prompt_token_ids":IDS,"token_ids":IDS}]}'
    ),
    "completion": (
        '{"id":"i","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"é",'
        '"logprobs":SCORES,"finish_reason":"stop","stop_reason":null,"token_ids":IDS,"prompt_logprobs":null,'
        '"prompt_token_ids":IDS,"routed_experts":null}],"service_tier":null,"system_fingerprint":null,'
        '"usage":{"prompt_tokens":0},"ec_transfer_params":null,"metrics":null}'
    ),
}
SILENT = (
    '{"id":"i","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},'
    '"logprobs":SCORES,"finish_reason":null,"token_ids":IDS}]}'
)


def written(name, *, ids, scores, number="-0.5"):
    shape = TEXT_SCORES if "completion" in name else CHAT_SCORES
    filled = ANSWERS.get(name, name).replace("SCORES", shape.replace("-0.5", number) if scores else "null")
    return filled.replace("IDS", "[5,6]" if ids else "null").encode()


@pytest.mark.parametrize("number", ["-0.5", "null", "NaN", "-Infinity"])
@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_left_is_what_is_sent_when_nobody_asks(name, number):
    full = written(name, ids=True, scores=True, number=number)
    assert take_out(full, ALL) == written(name, ids=False, scores=False)
    assert take_out(full, IDS) == written(name, ids=False, scores=True, number=number)
    assert take_out(full, LOGPROBS) == written(name, ids=True, scores=False)
    for less in (written(name, ids=False, scores=True), written(name, ids=True, scores=False)):
        assert take_out(less, ALL) == written(name, ids=False, scores=False)


def test_an_event_that_is_there_only_because_we_asked_is_dropped():
    full = written(SILENT, ids=True, scores=True)
    assert take_out(full, ALL) is None
    assert take_out(written(SILENT, ids=True, scores=True, number="NaN"), ALL) is None
    assert take_out(full, IDS) is not None, "the client asked for logprobs, and gets every step"
    assert take_out(full, LOGPROBS) is not None
    empty = written(SILENT.replace('"delta":{}', '"delta":{"content":""}'), ids=True, scores=True)
    assert take_out(empty, ALL) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[1]", b'{"error": {"message": "x"}, "token_ids": [1]}', b'{"choices":[],"usage":{"a": 1}}',
        b'{"choices": "odd"}', b'{"choices": [1]}', b"NaN", b'{"choices": [{"text": "a", "token_ids": null}]}',
        b'{"error": NaN, "text": "Infinity"}', b'{"choices":[{"text":"\xff"}]}',
    ],
)  # fmt: skip
def test_what_has_nothing_of_ours_passes_as_it_came(body):
    assert take_out(body, ALL) == body
