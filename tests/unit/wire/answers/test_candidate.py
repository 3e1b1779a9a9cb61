"""Candidates read from answers, whole and streamed."""

import json
import math

import pytest

from ppd_wire.answers.candidate import read_candidate, read_candidate_stream

NAN = math.nan


def entry(token, logprob, *tops):
    return {"token": token, "logprob": logprob, "bytes": [1], "top_logprobs": [entry_of_top(*top) for top in tops]}


def entry_of_top(token, logprob):
    return {"token": token, "logprob": logprob, "bytes": [1]}


def chat(*entries, ids, **message):
    choice = {"index": 0, "message": message, "logprobs": {"content": list(entries)}, "token_ids": ids}
    return {"choices": [{**choice, "finish_reason": "stop"}], "prompt_token_ids": [7, 8]}


def completion(logprobs, tops, *, ids):
    scores = {"text_offset": [0], "token_logprobs": logprobs, "tokens": ["a"], "top_logprobs": tops}
    choice = {"index": 0, "text": "ab", "logprobs": scores, "finish_reason": "length", "token_ids": ids}
    return {"choices": [{**choice, "prompt_token_ids": [7]}]}


def read(kind, body):
    return read_candidate(kind, json.dumps(body).encode())


def stream(*chunks, done=True):
    payloads = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks] + (["[DONE]"] if done else [])
    return b"".join(b"data: " + payload.encode() + b"\n\n" for payload in payloads)


def chunk(ids, *entries, finish_reason=None, **delta):
    scores = {"content": list(entries)} if entries else None
    choice = {"index": 0, "delta": delta, "logprobs": scores, "finish_reason": finish_reason, "token_ids": ids}
    return {"choices": [choice]}


def test_a_chat_answer_is_a_candidate():
    said = read("chat", chat(entry("a", -0.5, ("a", -0.5), ("b", -2)), entry("b", 0), ids=[1, 2], content="ab"))
    assert (said.prompt_token_ids, said.token_ids, said.logprobs) == ([7, 8], [1, 2], [-0.5, 0.0])
    assert said.tops == [{"a": -0.5, "b": -2.0}, {}]
    assert (said.finish_reason, said.text, said.tool_calls) == ("stop", "ab", [])


def test_a_completion_is_a_candidate():
    said = read("completion", completion([-0.5, -1], [{"a": -0.5, "token_id:3": -2}, None], ids=[1, 2]))
    assert (said.prompt_token_ids, said.token_ids, said.logprobs) == ([7], [1, 2], [-0.5, -1.0])
    assert said.tops == [{"a": -0.5, "token_id:3": -2.0}, {}]
    assert (said.finish_reason, said.text) == ("length", "ab")


def test_a_chat_stream_is_a_candidate():
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    more = {"index": 0, "function": {"arguments": "1}"}}
    said = read_candidate_stream("chat", stream(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "prompt_token_ids": [7]},
        chunk([1], entry("h", -1), reasoning="h"),
        chunk([2], entry("</think>", -2)),
        chunk([3, 4], entry("é", -3), entry("i", -4), content="éi"),
        chunk([5], entry("x", -5), tool_calls=[call]),
        chunk([6], entry("", -6), finish_reason="tool_calls", tool_calls=[more]),
        {"choices": [], "usage": {"prompt_tokens": 1}},
    ))  # fmt: skip
    assert (said.prompt_token_ids, said.token_ids) == ([7], [1, 2, 3, 4, 5, 6])
    assert said.logprobs == [-1, -2, -3, -4, -5, -6]
    assert (said.text, said.finish_reason) == ("éi", "tool_calls")
    assert said.tool_calls[0]["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_a_completion_stream_is_a_candidate():
    first = completion([-0.5], [{"a": -0.5}], ids=[1])
    first["choices"][0]["finish_reason"] = None
    second = completion([-1], [{"b": -1}], ids=[2])
    second["choices"][0]["prompt_token_ids"] = None
    said = read_candidate_stream("completion", b": keep-alive\n\n" + stream(first, second))
    assert (said.prompt_token_ids, said.token_ids, said.logprobs, said.text) == ([7], [1, 2], [-0.5, -1], "abab")


def test_an_answer_that_has_not_ended_has_no_finish_reason():
    said = read_candidate_stream("chat", stream(chunk([1], entry("a", -1), content="a"), done=False))
    assert (said.token_ids, said.finish_reason) == ([1], None)


@pytest.mark.parametrize(
    "number",
    [
        "NaN", "Infinity", "-Infinity", "null", "1e999", "-1e999", "0.002", "5", '"NaN"', '"-1"', "true", "[]", "{}",
        "-1" + "0" * 400,
    ],
)  # fmt: skip
def test_a_logprob_that_makes_no_sense_stays_as_nan(number):
    bodies = {
        "chat": json.dumps(chat(entry("a", -1), entry("NaN", 0.25, ("c", 0.25)), ids=[1, 2], content="NaN")),
        "completion": json.dumps(completion([-1, 0.25], [None, {"c": 0.25}], ids=[1, 2])),
    }
    for kind, body in bodies.items():
        raw = body.replace("0.25", number).encode()
        for said in (read_candidate(kind, raw), read_candidate_stream(kind, b"data: " + raw + b"\n\n")):
            assert said.token_ids == [1, 2]
            assert said.logprobs[0] == -1
            assert math.isnan(said.logprobs[1])
            assert math.isnan(said.tops[1]["c"])


def test_a_chat_entry_without_a_logprob_is_nan():
    """So vLLM streams a token that it has no logprob of."""
    said = read("chat", chat(entry("a", -1), {"token": "b", "bytes": [2]}, ids=[1, 2]))
    assert said.logprobs[0] == -1
    assert math.isnan(said.logprobs[1])


@pytest.mark.parametrize("number", [0, -0.0, 0.0005, -9999.0])
def test_numbers_up_to_zero_and_a_little_rounding_are_logprobs(number):
    assert read("completion", completion([number], [None], ids=[1])).logprobs == [number]


def test_of_tokens_with_the_same_text_the_likeliest_counts():
    said = read("chat", chat(entry("�", -1, ("�", -1), ("�", -3)), ids=[1]))
    assert said.tops == [{"�": -1.0}]


@pytest.mark.parametrize(
    "body",
    [
        chat(entry("a", -1), ids=[1, 2]), chat(entry("a", -1), ids=None), chat(ids=[1]), {"choices": []}, [], "x", {},
        {"choices": [{"index": 0, "logprobs": None, "token_ids": [1]}]}, {"error": {"message": "x"}},
        {"choices": [{"index": 1, "logprobs": None, "token_ids": []}]}, {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "token_ids": ["a"], "logprobs": {"content": [{"token": "a", "logprob": -1}]}}]},
    ],
    ids=str,
)  # fmt: skip
def test_where_tokens_and_logprobs_do_not_fit_there_is_no_candidate(body):
    assert read("chat", body) is None
    assert read_candidate_stream("chat", stream(body)) is None


@pytest.mark.parametrize("raw", [b"", b"not json", b'{"choices":', b'{"choices":[{"index":0,"text":"\xff"}]}'])
def test_what_is_no_answer_is_no_candidate(raw):
    assert read_candidate("chat", raw) is None
    assert read_candidate_stream("chat", b"data: " + raw + b"\n\n") is None


def test_a_stream_that_failed_is_no_candidate():
    assert read_candidate_stream("chat", stream(chunk([1], entry("a", -1)), {"error": {"message": "x"}})) is None


def test_tops_of_another_length_do_not_fit():
    assert read("completion", completion([-1, -1], [None], ids=[1, 2])) is None


def test_drafts_are_told_by_position_where_the_engine_tells_them():
    """Ten steps of three drafts: 2 accepted none, 3 one, 4 two, 1 all (vLLM's SpeculativeDecodingMetrics)."""
    told = {"acceptance_histogram": [2, 3, 4, 1], "num_draft_tokens": 30, "num_accepted_draft_tokens": 14}
    choice = {
        "index": 0, "text": "a", "finish_reason": "stop", "prompt_token_ids": [1], "token_ids": [2],
        "logprobs": {"token_logprobs": [-0.5], "top_logprobs": None},
    }  # fmt: skip
    body = json.dumps({"choices": [choice], "metrics": {"speculative_decoding": told}}).encode()
    found = read_candidate("completion", body).acceptance
    assert (found.steps, found.drafted, found.accepted) == (10, 30, 14)
    assert found.per_position == [0.8, 0.5, 0.1]
    assert read_candidate("completion", json.dumps({"choices": [choice], "metrics": None}).encode()).acceptance is None
