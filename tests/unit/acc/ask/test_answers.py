import json

import pytest

from ppd_acc.ask.answers import Answer, read_answer
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare_answers
from ppd_accuracy.answers.flips import ReplayNoise


def body(*entries, ids=None):
    content = [{"token": name, "logprob": -0.1, "bytes": told} for name, told in entries]
    choice = {"message": {"content": "x"}, "logprobs": {"content": content}, "token_ids": ids}
    return json.dumps({"choices": [choice]}).encode()


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (("token_id:7", [32, 99]), " c"),
        (("token_id:7", None), None),
        (("token_id:7", list(b"token_id:7")), None),
        (("token_id:7", [195]), "\ufffd"),
        (("token_id:7", [999]), None),
        ((" c", [32, 99]), " c"),
        (("token_id:", list(b"token_id:")), None),
    ],
)
def test_a_tokens_text_is_read_from_its_bytes(entry, text):
    assert read_answer(body(entry, ids=[7])).token_texts == [text]


def test_texts_of_another_number_of_tokens_are_left_out():
    assert read_answer(body(("token_id:7", [99]), ids=[7, 8])).token_texts == []


def answer(text, tokens, texts, unit="tokens"):
    return Answer(text=text, tokens=tokens, token_texts=texts, unit=unit)


def test_the_first_difference_tells_both_tokens_texts():
    one = answer("a carpet", [1, 2], ["a", " carpet"])
    other = answer("a cart", [1, 3], ["a", " cart"])
    flip = compare_answers("s", Question(), one, other, ReplayNoise(), is_greedy=True).flip
    assert flip is not None
    assert (flip.baseline_text, flip.target_text) == (" carpet", " cart")


def test_an_answer_that_has_ended_has_no_text_there():
    flip = compare_answers(
        "s", Question(), answer("a", [1], ["a"]), answer("a b", [1, 2], ["a", " b"]), ReplayNoise(), is_greedy=True
    ).flip
    assert flip is not None
    assert (flip.baseline_text, flip.target_text) == (None, " b")


def test_a_words_number_is_no_tokens_number():
    one, other = answer("so it is", [1, 2], ["so it", " is"]), answer("so it was", [], [], unit="words")
    flip = compare_answers("s", Question(), one, other, ReplayNoise(), is_greedy=True).flip
    assert flip is not None
    assert flip.position == 2
    assert (flip.baseline_text, flip.target_text) == (None, None)
