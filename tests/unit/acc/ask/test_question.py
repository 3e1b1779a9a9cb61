"""What a question comes to as a request."""

import pytest

from ppd_acc.ask.access import Sampling
from ppd_acc.ask.question import Question

SAMPLING = Sampling(temperature=0.0, top_p=1.0, seed=1, max_tokens=3, top_k=5)
MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("question", "endpoint", "path", "field"),
    [
        (Question(prompt="a"), "chat", "/v1/chat/completions", ("messages", [{"role": "user", "content": "a"}])),
        (Question(prompt="a"), "completions", "/v1/completions", ("prompt", "a")),
        (Question(prompt=[1, 2]), "chat", "/v1/completions", ("prompt", [1, 2])),
        (Question(messages=MESSAGES), "completions", "/v1/chat/completions", ("messages", MESSAGES)),
    ],
)
def test_a_text_goes_where_it_is_told_and_ids_to_completions(question, endpoint, path, field):
    sent, body = question.body(endpoint, "m", SAMPLING)
    assert (sent, body[field[0]]) == (path, field[1])
    assert body["return_token_ids"] is True


def test_extra_fields_have_the_last_word():
    assert Question(prompt="a", extra={"max_tokens": 9, "seed": None}).body("chat", "m", SAMPLING)[1]["max_tokens"] == 9


def test_people_see_the_prompt_or_the_last_message():
    assert Question(prompt=[1, 2]).text == "1 2"
    assert Question(messages=[*MESSAGES, {"content": "and you?"}]).text == "and you?"
    assert Question(messages=[{"content": [{"type": "text"}]}]).text == '[{"type":"text"}]'


def test_longer_questions_are_larger():
    assert Question(prompt="ab").size > Question(prompt="a").size
    assert Question(messages=MESSAGES * 2).size > Question(messages=MESSAGES).size
