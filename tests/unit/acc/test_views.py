"""What several commands show."""

import pytest

from ppd_acc.views import counted, noise_line
from ppd_accuracy.answers.flips import floor_of, measure


@pytest.mark.parametrize(("count", "told"), [(0, "0 answers"), (1, "1 answer"), (2, "2 answers")])
def test_a_counted_noun_is_plural_but_for_one(count, told):
    assert counted(count, "answer") == told


def test_a_counted_phrase_has_its_own_plural():
    assert counted(1, "answer differs", "answers differ") == "1 answer differs"
    assert counted(3, "answer differs", "answers differ") == "3 answers differ"


def test_a_floor_of_one_answer_is_told_in_the_singular():
    line = noise_line(floor_of([measure([0.1], [0.1], prompt_tokens=1, is_flipped=True)]))
    assert line.startswith("noise floor of 1 answer to prompts of up to 1 token, 1 token: ")
    assert line.endswith("1 answer differs when asked again")
