import json

import pytest
from tests.support.acc.engines import engine_config

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.engines import EngineTrouble, engines
from ppd_acc.ask.question import Question
from ppd_acc.ask.streams import StreamReader
from ppd_sim.engine import running_engine
from ppd_sim.faults import Fault

SAMPLING = Sampling(temperature=0.0, top_p=1.0, seed=42, max_tokens=12, top_k=3)


def access(**changes):
    settings = {
        "model": None, "api_key": None, "headers": {}, "endpoint": "chat", "timeout_s": 10.0, "retries": 0,
        "retry_delay_s": 0.0, "concurrency": 8,
    }  # fmt: skip
    return Access(**(settings | changes))


def event(delta=None, *, ids=None, finish=None, logprobs=None, **more):
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, "token_ids": ids, "logprobs": logprobs}
    return b"data: " + json.dumps({"id": "x", "choices": [choice], **more}).encode() + b"\n\n"


def entry(token_id):
    return {"token": f"token_id:{token_id}", "logprob": -0.5, "top_logprobs": []}


def read(*events, at_ms=lambda number: 10.0 * number):
    reader = StreamReader()
    for number, data in enumerate(events):
        reader.feed(data, at_ms(number))
    return reader.finish(1000.0)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
async def test_a_streamed_answer_is_the_same_as_one_in_one_piece(endpoint):
    async with (
        running_engine(engine_config(reasoning_tokens=4)) as sim,
        engines(access(endpoint=endpoint), sim.url) as (engine,),
    ):
        whole = await engine.ask(Question(prompt="A story"), SAMPLING)
        streamed = await engine.stream(Question(prompt="A story"), SAMPLING)
    one = streamed.answer
    for name in ("text", "tokens", "unit", "logprobs", "tops", "prompt_token_ids", "finish_reason", "reasoning"):
        assert getattr(one, name) == getattr(whole, name), name
    assert streamed.is_done
    assert streamed.tokens == streamed.counted_tokens == 12
    assert len(streamed.gaps_ms()) == 11
    assert one.first_ms is not None
    assert one.first_ms <= one.total_ms


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("die_after", "broken"),
        ("error_after", "bad_answer"),
        ("truncate_after", "bad_answer"),
        ("status", "status_500"),
    ],
)
async def test_a_stream_that_breaks_off_is_no_answer(kind, reason):
    async with running_engine(engine_config()) as sim, engines(access(), sim.url) as (engine,):
        sim.faults.add(Fault(kind=kind, path="/v1/chat", chunks=3))
        with pytest.raises(EngineTrouble) as trouble:
            await engine.stream(Question(prompt="hi"), SAMPLING)
    assert trouble.value.reason == reason


async def test_a_stream_that_stalls_ends_in_a_timeout():
    async with running_engine(engine_config()) as sim, engines(access(timeout_s=0.2), sim.url) as (engine,):
        sim.faults.add(Fault(kind="stall_after", path="/v1/chat", chunks=3))
        with pytest.raises(EngineTrouble) as trouble:
            await engine.stream(Question(prompt="hi"), SAMPLING)
    assert trouble.value.reason == "timeout"


def test_an_event_in_two_pieces_is_read_once_it_is_whole():
    data = event({"content": "é"}, ids=[1]) + event({}, ids=[], finish="stop") + b"data: [DONE]\n\n"
    reader = StreamReader()
    for place in range(len(data)):
        reader.feed(data[place : place + 1], float(place))
    told = reader.finish(1.0)
    assert told.answer.text == "é"
    assert told.answer.tokens == [1]
    assert told.is_done


def test_a_chunk_of_several_tokens_shares_its_gap():
    told = read(
        event({"role": "assistant", "content": ""}),
        event({"content": "a"}, ids=[1]),
        event({"content": " b c d"}, ids=[2, 3, 4]),
        event({}, ids=[], finish="stop"),
    )
    assert told.answer.tokens == [1, 2, 3, 4]
    assert told.first_ms == 10.0  # the role is no token
    assert told.gaps_ms() == pytest.approx([10 / 3] * 3)


def test_tokens_without_text_count_and_reasoning_is_told_apart():
    told = read(
        event({"reasoning_content": "so"}, ids=[1]),
        event({}, ids=[2]),
        event({"content": "yes"}, ids=[3], finish="stop"),
    )
    assert told.answer.reasoning == "so"
    assert told.answer.text == "yes"
    assert (told.tokens, told.reasoning_tokens) == (3, 1)


def test_without_ids_the_names_in_the_logprobs_are_the_tokens():
    told = read(event({"content": "a"}, logprobs={"content": [entry(5), entry(6)]}, finish="stop"))
    assert told.answer.tokens == [5, 6]
    assert told.answer.logprobs == [-0.5, -0.5]
    assert told.tokens == 2


def test_without_ids_and_logprobs_words_are_compared_and_the_usage_counts():
    told = read(event({"content": "a b"}), event({}, finish="stop", usage={"prompt_tokens": 1, "completion_tokens": 7}))
    assert told.answer.unit == "words"
    assert told.tokens == 7
    assert told.answer.prompt_tokens == 1


def test_ids_of_half_of_the_chunks_are_no_ids_of_the_answer():
    told = read(event({"content": "a"}, ids=[1]), event({"content": " b"}), event({}, finish="stop"))
    assert told.answer.unit == "words"


def test_pieces_of_a_tool_call_become_one_call():
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    told = read(
        event({"tool_calls": [first]}, ids=[1]),
        event({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}, ids=[2], finish="tool_calls"),
    )
    (call,) = told.answer.tool_calls
    assert call["id"] == "c1"
    assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}


def test_a_second_choice_is_left_out():
    other = {"index": 1, "delta": {"content": "no"}, "token_ids": [9], "finish_reason": "stop"}
    told = read(
        event({"content": "yes"}, ids=[1]),
        b"data: " + json.dumps({"choices": [other]}).encode() + b"\n\n",
        event({}, ids=[], finish="stop"),
    )
    assert told.answer.tokens == [1]


@pytest.mark.parametrize(
    "payload", [b"data: {nonsense\n\n", b'data: {"error": {"message": "no"}}\n\n', b"data: []\n\n"]
)
def test_an_event_that_is_none_is_told(payload):
    with pytest.raises(ValueError, match="stream"):
        read(payload)


def test_comments_and_line_ends_of_other_servers_are_read():
    data = event({"content": "a"}, ids=[1], finish="stop").replace(b"\n", b"\r\n")
    told = read(b": keep-alive\r\n\r\n" + data + b"data: [DONE]\r\n\r\n")
    assert told.answer.tokens == [1]
    assert told.is_done


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_are_read_by_field_however_their_bytes_are_cut(end):
    told = event({"content": "hel"}, ids=[1]) + event({"content": "lo"}, ids=[2], finish="stop") + b"data: [DONE]\n\n"
    odd = b"\xef\xbb\xbf: hello\n\nretry: 9\nid: 1\n" + told.replace(b"data: ", b"event: message\ndata:", 1)
    odd = odd.replace(b"\n", end)
    for place in range(len(odd)):
        streamed = read(odd[:place], odd[place:])
        assert (streamed.answer.text, streamed.answer.tokens, streamed.is_done) == ("hello", [1, 2], True)


def test_an_event_named_error_ends_the_answer_whatever_its_data():
    with pytest.raises(ValueError, match="error event"):
        read(event({"content": "hel"}, ids=[1]), b'event: error\ndata: {"message": "out of memory"}\n\n')


def test_a_last_event_without_its_empty_line_is_read():
    streamed = read(event({"content": "all"}, ids=[1], finish="stop").rstrip(b"\n"))
    assert streamed.answer.text == "all"
