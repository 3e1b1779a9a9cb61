"""Which histories are known, and who holds them."""

import pytest
from tests.support.chats import (
    assistant,
    check_empty,
    check_tree,
    home,
    look_up,
    look_up_raw,
    serve,
    serve_raw,
    system,
    user,
)

from ppd_core.conversation.conversations import Conversations
from ppd_core.conversation.history import History
from ppd_core.conversation.identity import RememberedAnswer, scope


@pytest.fixture
def store():
    return Conversations(max_conversations=100, ttl_s=60)


# chat


def test_a_first_turn_is_unknown(store):
    assert look_up(store, [user("hi")]) == History()


def test_the_next_turn_is_complete_and_knows_its_home(store):
    serve(store, [user("hi")], "hello", engine="d2", incarnation=3)
    history = look_up(store, [user("hi"), assistant("hello"), user("more")])
    assert history == History(known_answers=1, is_complete=True, has_answers=True, home=home("d2", 20, 3))
    assert history.turn == 2


def test_five_turns_are_one_conversation(store):
    messages = [system("be brief")]
    for turn in range(5):
        messages.append(user(f"question {turn}"))
        assert look_up(store, messages).turn == turn + 1
        serve(store, messages, f"answer {turn}", now=float(turn))
        messages.append(assistant(f"answer {turn}"))
    assert store.count == 1
    assert store.listing(now=10.0) == [{"turns": 5, "home": "d1", "tokens": 110, "age_s": 6.0}]
    check_tree(store)


def test_two_users_with_the_same_first_message_are_told_apart_by_their_answers(store):
    serve(store, [user("hi")], "hello, A", engine="d1")
    serve(store, [user("hi")], "hello, B", engine="d2")
    assert store.count == 2
    for name, engine in (("A", "d1"), ("B", "d2")):
        history = look_up(store, [user("hi"), assistant(f"hello, {name}"), user("more")])
        assert (history.is_complete, history.home) == (True, home(engine, 20))


def test_the_same_opener_alone_is_known_but_no_answer(store):
    serve(store, [user("hi")], "hello")
    assert look_up(store, [user("hi")]) == History(home=home("d1", 10))


def test_a_shared_system_prompt_does_not_make_a_history_complete(store):
    prompt = system("long " * 5000)
    serve(store, [prompt, user("a")], "x")
    history = look_up(store, [prompt, user("b"), assistant("y"), user("c")])
    assert history == History(has_answers=True, home=home("d1", 0))


def test_shared_few_shot_examples_are_not_answers(store):
    shots = [user("1+1"), assistant("2"), user("2+2"), assistant("4")]
    serve(store, [*shots, user("3+3")], "6")
    other = look_up(store, [*shots, user("4+4")])
    assert (other.known_answers, other.is_complete, other.has_answers) == (0, False, True)
    own = look_up(store, [*shots, user("3+3"), assistant("6"), user("and?")])
    assert (own.known_answers, own.is_complete) == (1, True)


def test_an_example_that_an_engine_then_answers_becomes_an_answer(store):
    serve(store, [user("1+1"), assistant("2"), user("3+3")], "6")
    serve(store, [user("1+1")], "2")
    history = look_up(store, [user("1+1"), assistant("2"), user("else")])
    assert (history.known_answers, history.is_complete, history.home) == (1, True, home("d1", 20))
    assert look_up(store, [user("1+1"), assistant("2"), user("3+3"), assistant("6"), user("x")]).turn == 3
    check_tree(store)


def test_an_edited_earlier_message_is_known_up_to_the_edit(store):
    messages = [user("a"), assistant("b"), user("c")]
    serve(store, messages[:1], "b")
    serve(store, messages, "d")
    edited = look_up(store, [user("a"), assistant("b"), user("EDITED"), assistant("d"), user("e")])
    assert (edited.known_answers, edited.is_complete, edited.home) == (1, False, home("d1", 20))
    edited_again = look_up(store, [user("a"), assistant("b"), user("EDITED")])
    assert (edited_again.known_answers, edited_again.is_complete) == (1, True)


def test_an_invented_answer_is_not_known(store):
    serve(store, [user("a")], "b")
    assert look_up(store, [user("a"), assistant("invented"), user("c")]).is_complete is False


def test_a_regenerated_answer_makes_a_second_conversation_with_the_same_history(store):
    serve(store, [user("a")], "b")
    messages = [user("a"), assistant("b"), user("c")]
    serve(store, messages, "d")
    again = look_up(store, messages)
    assert (again.known_answers, again.is_complete, again.home) == (1, True, home("d1", 30))
    serve(store, messages, "D", engine="d2")
    assert store.count == 2
    assert look_up(store, [*messages, assistant("d"), user("e")]).home == home("d1", 40)
    assert look_up(store, [*messages, assistant("D"), user("e")]).home == home("d2", 40)
    check_tree(store)


def test_branches_share_their_trunk_and_vanish_one_by_one():
    store = Conversations(max_conversations=2, ttl_s=60)
    trunk = [user("a"), assistant("b")]
    serve(store, trunk[:1], "b")
    serve(store, [*trunk, user("left")], "l")
    serve(store, [*trunk, user("right")], "r")
    assert store.count == 2
    serve(store, [user("other")], "o")
    assert look_up(store, [*trunk, user("left"), assistant("l"), user("x")]).is_complete is False
    assert look_up(store, [*trunk, user("right"), assistant("r"), user("x")]).turn == 3
    serve(store, [user("another")], "o")
    serve(store, [user("yet another")], "o")
    assert look_up(store, [*trunk, user("x")]) == History(has_answers=True)
    check_tree(store)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(RememberedAnswer(content="\n\nfour", reasoning="hm"), id="field"),
        pytest.param(RememberedAnswer(content="<think>hm</think>\n\nfour"), id="think block"),
    ],
)
def test_an_answer_with_reasoning_is_known_with_and_without_it_but_only_its_prompt_is_held(store, answer):
    """Chat templates leave the reasoning of earlier answers out, also where the client sends it back."""
    serve(store, [user("2+2")], answer)
    kept = assistant(answer.content, reasoning_content=answer.reasoning)
    for sent_back in (assistant("four"), kept):
        history = look_up(store, [user("2+2"), sent_back, user("sure?")])
        assert history == History(known_answers=1, is_complete=True, has_answers=True, home=home("d1", 10))
    assert store.count == 1


def test_what_follows_an_answer_with_reasoning_counts_no_reasoning_either(store):
    """Known up to a step where no count was taken: the last count before it would be that of the reasoning."""
    trunk = [user("2+2"), assistant("four"), user("sure?")]
    serve(store, trunk[:1], RememberedAnswer(content="four", reasoning="a long way"), prompt_tokens=10)
    serve(store, [*trunk, assistant("an example"), user("so?")], "yes", prompt_tokens=15)
    assert look_up(store, trunk).home == home("d1", 10)
    serve(store, [*trunk, assistant("another"), user("so?")], "no", prompt_tokens=15)
    assert look_up(store, trunk).home == home("d1", 10)


def test_a_conversation_without_its_reasoning_goes_on_as_one(store):
    messages = [user("2+2")]
    serve(store, messages, RememberedAnswer(content="four", reasoning="hm"))
    messages += [assistant("four"), user("sure?")]
    serve(store, messages, RememberedAnswer(content="yes", reasoning="hm again"))
    messages += [assistant("yes"), user("thanks")]
    assert look_up(store, messages).turn == 3
    assert store.count == 1
    check_tree(store)


def test_the_latest_of_two_answers_that_differ_in_reasoning_only_is_home(store):
    serve(store, [user("2+2")], RememberedAnswer(content="four", reasoning="one way"), engine="d1")
    serve(store, [user("2+2")], RememberedAnswer(content="four", reasoning="another way"), engine="d2")
    assert look_up(store, [user("2+2"), assistant("four"), user("x")]).home == home("d2", 10)
    serve(store, [user("2+2")], "four", engine="d3")
    assert look_up(store, [user("2+2"), assistant("four"), user("x")]).home == home("d3", 20)
    check_tree(store)


def test_an_answer_outlives_the_form_its_prompt_ended_in_without_a_trace_left(store):
    prompt = [user("2+2"), assistant("four")]
    serve(store, prompt[:1], RememberedAnswer(content="four", reasoning="one way"), now=0.0)
    serve(store, prompt, "indeed", now=40.0)
    serve(store, prompt[:1], RememberedAnswer(content="four", reasoning="another way"), now=40.0)
    look_up(store, [*prompt, assistant("indeed")], now=80.0)
    assert store.expire(110.0) == 1  # the second answer, which the stripped form had come to belong to
    serve(store, prompt, "indeed", now=110.0)
    check_tree(store)
    store.expire(1000.0)
    check_empty(store)


def test_list_content_with_images_is_told_apart_by_the_image(store):
    def picture(url):
        return user([{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}])

    serve(store, [picture("data:image/png;base64,AAAA")], "a cat")
    assert look_up(store, [picture("data:image/png;base64,AAAA"), assistant("a cat"), user("sure?")]).is_complete
    assert look_up(store, [picture("data:image/png;base64,BBBB"), assistant("a cat"), user("?")]) == History(
        has_answers=True
    )


def test_tool_calls_are_recognised_with_reordered_arguments_and_results_after_them(store):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1, "b": 2}'}}
    serve(store, [user("go")], RememberedAnswer(tool_calls=[call]))
    sent_back = {"id": "c1", "function": {"arguments": {"b": 2, "a": 1}, "name": "f"}, "type": "function", "index": 0}
    results = [{"role": "tool", "tool_call_id": "c1", "content": "3"}]
    assert look_up(store, [user("go"), assistant(None, tool_calls=[sent_back]), *results]).is_complete


def test_another_key_does_not_see_the_history(store):
    other = scope(api_key="another", fields={})
    serve(store, [user("hi")], "hello")
    assert look_up(store, [user("hi"), assistant("hello"), user("x")], scope=other) == History(has_answers=True)


def test_a_continued_last_message_leaves_no_answer(store):
    messages = [user("tell"), assistant("Once upon")]
    serve(store, messages, None)
    assert look_up(store, messages) == History(has_answers=True, home=home("d1", 20))
    assert look_up(store, [user("tell"), assistant("Once upon a time"), user("x")]).is_complete is False


def test_home_moves_with_the_latest_turn_and_so_does_everything_before_it(store):
    serve(store, [user("a")], "b", engine="d1")
    serve(store, [user("a"), assistant("b"), user("c")], "d", engine="d2", incarnation=7)
    assert look_up(store, [user("a"), assistant("b"), user("branch")]).home == home("d2", 20, 7)


def test_a_history_sent_whole_after_a_restart_counts_from_its_first_known_answer(store):
    messages = [user("a"), assistant("b"), user("c")]
    serve(store, messages, "d")
    history = look_up(store, [*messages, assistant("d"), user("e")])
    assert (history.turn, history.is_complete) == (2, True)


def test_an_empty_list_of_messages_is_unknown_and_not_remembered(store):
    store.remember_chat([], None, home=home(), prompt_tokens=0, now=0.0)
    assert store.look_up_chat([], last_assistant=-1, now=0.0) == History()
    check_empty(store)


# raw prompts


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("answer_size", [1, 64, 2000])
def test_a_raw_prompt_that_continues_an_answer_is_complete(store, size, answer_size):
    prompt, answer = "p" * size, "a" * answer_size
    serve_raw(store, prompt, answer)
    history = look_up_raw(store, prompt + answer + " and then?")
    assert history == History(known_answers=1, is_complete=True, has_answers=True, home=home("d1", size + answer_size))
    assert look_up_raw(store, prompt + answer[:-1] + "?") == History()
    assert look_up_raw(store, prompt + answer).is_complete


def test_raw_turns_are_one_conversation(store):
    prompt = "x" * 700
    for turn in range(5):
        prompt += f" Q{turn}: " + "why " * 30
        assert look_up_raw(store, prompt).turn == turn + 1
        serve_raw(store, prompt, f"because {turn}", now=1.0)
        prompt += f"because {turn}"
    assert store.count == 1
    assert store.listing(now=3.0) == [{"turns": 5, "home": "d1", "tokens": len(prompt), "age_s": 2.0}]
    check_tree(store)


def test_many_short_raw_texts_with_one_beginning_are_all_found():
    store = Conversations(max_conversations=2000, ttl_s=60)
    shots = "example " * 200
    for index in range(2000):
        serve_raw(store, f"{shots}{index}" + "?" * (index % 90), "yes", engine=f"d{index}")
    for index in range(2000):
        history = look_up_raw(store, f"{shots}{index}" + "?" * (index % 90) + "yes, and?")
        assert (history.is_complete, history.home.engine_id) == (True, f"d{index}")


def test_token_id_prompts_are_continued_by_ids(store):
    serve_raw(store, [5, 6, 7] * 500, [1, 2, 3])
    assert look_up_raw(store, [*[5, 6, 7] * 500, 1, 2, 3, 9]).is_complete
    assert look_up_raw(store, [*[5, 6, 7] * 500, 1, 2, 4, 9]).is_complete is False


@pytest.mark.parametrize("answer", [None, [], ""])
def test_an_unknown_answer_leaves_only_the_prompt(store, answer):
    serve_raw(store, [5, 6, 7], answer)
    assert look_up_raw(store, [5, 6, 7, 8]) == History(home=home("d1", 3))


def test_a_prompt_that_turns_out_to_be_an_answer_becomes_one(store):
    serve_raw(store, "a b", None)
    serve_raw(store, "a", " b")
    assert look_up_raw(store, "a b c").is_complete


def test_another_keys_raw_text_is_not_known(store):
    serve_raw(store, "a" * 2000, "b")
    other = scope(api_key="another", fields={})
    assert look_up_raw(store, "a" * 2000 + "b", scope=other) == History()
