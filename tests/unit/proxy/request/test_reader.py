"""What a client asks, as it is known before the first plan."""

import json

import pytest
from tests.support.parts import Parts, make_call
from tests.support.steps import MESSAGES, run

from ppd_core.conversation.history import History
from ppd_proxy.request.reader import BYTES_PER_TOKEN, Reader
from ppd_proxy.request.remember import Memory
from ppd_wire.errors import BadRequest
from ppd_wire.requests.asked import IDS, NOTHING

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
HISTORY = History(known_answers=2)


@pytest.fixture
def parts():
    return Parts()


def test_a_chat_says_what_the_deciders_need(parts):
    request = parts.read({**CHAT, "stream": True}).request
    demand = request.demand
    assert demand.prompt_tokens == len(json.dumps(CHAT["messages"])) // BYTES_PER_TOKEN
    assert (request.is_stream, demand.is_split_endpoint, demand.is_multi_sequence) == (True, True, False)
    assert (demand.history, len(demand.spread_key), len(request.steps)) == (History(), 16, 1)


def test_several_sequences_continue_no_conversation(parts):
    request = parts.read({**CHAT, "n": 2}).request
    assert (request.demand.is_multi_sequence, request.steps, request.generation.choices) == (True, None, 2)


def test_an_endpoint_that_is_never_split_has_a_size_and_no_conversation(parts):
    request = parts.read({"messages": [{"role": "user", "content": "hi" * 50}], "stream": True}, "messages").request
    assert (request.generation, request.steps, request.is_stream) == (None, None, True)
    assert not request.demand.is_split_endpoint
    assert request.demand.prompt_tokens > 0


def test_only_what_is_sampled_is_asked_for_more(parts):
    assert parts.read(CHAT).request.asked == NOTHING
    parts.sampled = True
    request = parts.read(CHAT).request
    assert (request.is_sampled, request.is_scored) == (True, True)
    assert (request.asked.ids, request.asked.logprobs, request.plainly_asked) == (True, True, NOTHING)


def test_a_sampled_request_that_cannot_be_asked_without_a_trace_is_not_scored(parts):
    parts.sampled = True
    request = parts.read({**CHAT, "include_reasoning": False}).request
    assert (request.is_sampled, request.is_scored, request.asked) == (True, False, NOTHING)


def test_a_prompt_of_token_ids_is_always_asked_for_those_of_its_answer(parts):
    request = parts.read({"prompt": [1, 2, 3]}, "completion").request
    assert (request.asked, request.plainly_asked) == (IDS, IDS)


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"messages":7}'])
def test_what_cannot_be_read_is_a_bad_request(parts, body):
    with pytest.raises(BadRequest):
        parts.read(body)


def test_a_large_body_is_read_in_steps(parts):
    call = make_call({"messages": MESSAGES["many"]})
    request, steps = run(parts.reader.read(call, "0" * 32))
    assert steps > 1
    assert len(request.steps) == len(MESSAGES["many"])


def test_a_store_that_has_to_be_asked_elsewhere_is_awaited(parts):
    async def later():
        return HISTORY

    found = later()

    class Elsewhere:
        def look_up_chat(self, steps, **facts):
            return found

    reader = Reader(Memory(Elsewhere(), parts.clock), lambda _: False, frozenset())
    reading = reader.read(make_call(CHAT), "0" * 32)
    assert next(reading) is found
    found.close()
    with pytest.raises(StopIteration) as read:
        reading.send(HISTORY)
    assert read.value.value.demand.history == HISTORY
