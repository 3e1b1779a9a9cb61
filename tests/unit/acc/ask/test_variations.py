"""Different questions of a few prompts."""

from ppd_acc.ask.question import Question
from ppd_acc.ask.variations import variations, vary_question


def test_prompts_come_as_they_are_first_and_all_differ():
    asked = [each.prompt for each in variations(["a", "b"], 5)]
    assert asked[:2] == ["a", "b"]
    assert len(set(asked)) == 5
    assert [each.splitlines()[-1] for each in asked] == ["a", "b", "a", "b", "a"]


def test_a_conversation_is_varied_in_its_last_message_only():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    varied = vary_question(Question(messages=messages), 2)
    assert varied.messages[0] == messages[0]
    assert varied.messages[1]["content"].endswith("\nu")
    assert vary_question(Question(messages=messages), 0).messages == messages


def test_what_has_no_text_of_its_own_stays():
    ids, parts = Question(prompt=[1]), Question(messages=[{"role": "user", "content": [{"type": "text"}]}])
    assert vary_question(ids, 3) == ids
    assert vary_question(parts, 3) == parts
