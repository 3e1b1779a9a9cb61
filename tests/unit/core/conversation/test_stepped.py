"""The history of a large body, told in steps, is the one that it has in one go."""

import json

import pytest
from tests.support.steps import MESSAGES, PROMPTS, run

from ppd_core.conversation import identity, stepped
from ppd_wire.requests import generation as chat
from ppd_wire.requests import stepped as requests

SCOPE = b"s" * 16


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES)
def test_a_large_chat_has_the_history_that_it_has_in_one_go(messages):
    body = json.dumps({"model": "m", "messages": messages}).encode()
    whole = chat.parse("chat", body)
    request, _ = run(requests.parse("chat", body, frozenset()))
    steps, count = run(stepped.chat_steps(SCOPE, request))
    assert steps == identity.chat_steps(SCOPE, whole.messages)
    assert count > 0


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_large_prompt_has_the_history_that_it_has_in_one_go(prompt):
    body = json.dumps({"prompt": prompt}).encode()
    request, _ = run(requests.parse("completion", body, frozenset()))
    steps, count = run(stepped.raw_steps(SCOPE, request.prompt))
    assert steps == identity.raw_steps(SCOPE, chat.parse("completion", body).prompt)
    assert count > 0
