"""A request finds the history that the answers before it left."""

import pytest
from tests.support.parts import make_call

from ppd_core.conversation.conversations import Conversations
from ppd_core.conversation.history import Home
from ppd_proxy.request.remember import Memory
from ppd_wire.answers.answer import EngineAnswer
from ppd_wire.requests.generation import parse

HOME = Home(engine_id="d1:8000", incarnation=0, held_tokens=20)
HI = {"role": "user", "content": "hi"}
HELLO = {"role": "assistant", "content": "hello"}


@pytest.fixture
def memory():
    return Memory(Conversations(max_conversations=10, ttl_s=100.0), lambda: 1.0)


def asked(memory, fields, dialect="chat", **named):
    call = make_call(fields, dialect, **named)
    generation = parse(call.envelope.kind, call.body)
    return generation, memory.look_up(call.envelope, generation)


def answered(memory, fields, answer, dialect="chat", **named):
    generation, found = asked(memory, fields, dialect, **named)
    memory.remember(generation, answer, found.steps, home=HOME, prompt_tokens=10)
    return found


def test_the_next_turn_of_a_chat_finds_its_home(memory):
    first = answered(memory, {"messages": [HI]}, EngineAnswer(content="hello"))
    _, found = asked(memory, {"messages": [HI, HELLO, {"role": "user", "content": "and?"}]})
    assert (first.history.turn, found.history.turn, found.history.home) == (1, 2, HOME)
    assert found.history.is_complete
    assert found.spread_key == first.spread_key


def test_another_answer_is_another_history(memory):
    answered(memory, {"messages": [HI]}, EngineAnswer(content="good day"))
    _, found = asked(memory, {"messages": [HI, HELLO, HI]})
    assert (found.history.known_answers, found.history.is_complete) == (0, False)


def test_conversations_that_are_named_apart_are_apart(memory):
    answered(memory, {"messages": [HI]}, EngineAnswer(content="hello"), x_session_id="a")
    turns = [asked(memory, {"messages": [HI, HELLO, HI]}, x_session_id=name)[1].history.turn for name in "ab"]
    assert turns == [2, 1]


def test_an_answer_that_goes_on_with_the_clients_own_is_not_remembered_as_a_step(memory):
    body = {"messages": [HI, HELLO], "continue_final_message": True, "add_generation_prompt": False}
    answered(memory, body, EngineAnswer(content=" there"))
    _, found = asked(memory, {"messages": [HI, HELLO, HI]})
    assert found.history.known_answers == 0


@pytest.mark.parametrize(
    ("prompt", "answer", "fields"),
    [
        ("Once ", EngineAnswer(content="upon a time"), {}),
        ("Once ", EngineAnswer(content="Once upon a time"), {"echo": True}),
        ([*range(40)], EngineAnswer(content="", token_ids=[40, 41]), {}),
    ],
)
def test_a_raw_prompt_is_found_by_what_it_begins_with(memory, prompt, answer, fields):
    answered(memory, {"prompt": prompt, **fields}, answer, "completion")
    longer = [*range(45)] if isinstance(prompt, list) else "Once upon a time there was"
    _, found = asked(memory, {"prompt": longer}, "completion")
    assert (found.history.turn, found.history.home) == (2, HOME)
