"""What a conversation's home remembers, and how homes are forgotten while histories stay."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.chats import assistant, check_tree, home, look_up, look_up_raw, serve, serve_raw, system, user

from ppd_core.conversation.conversations import Conversations

OPENER = [user("a")]
NEXT = [*OPENER, assistant("b"), user("c")]
WORDS = st.sampled_from("abc")


@pytest.fixture
def store():
    return Conversations(max_conversations=10, ttl_s=60)


def test_a_home_remembers_who_filled_it_and_its_salt(store):
    serve(store, OPENER, "b", filled_by=("p1", "p2"), salt="s")
    assert look_up(store, NEXT).home == home("d1", 20, filled_by=("p1", "p2"), salt="s")


def test_the_latest_turn_says_what_all_its_steps_have(store):
    serve(store, OPENER, "b", filled_by=("p1",))
    serve(store, NEXT, "d", filled_by=("p1", "p2"))
    assert look_up(store, OPENER).home.filled_by == ("p1", "p2")


def test_forgotten_homes_leave_the_history_known(store):
    serve(store, OPENER, "b", filled_by=("p1",))
    assert store.forget_homes(lambda known: "p1" in known.filled_by) == 1
    history = look_up(store, NEXT)
    assert (history.is_complete, history.known_answers, history.home) == (True, 1, None)
    assert store.listing(now=1.0) == [{"turns": 1, "home": None, "tokens": 0, "age_s": 1.0}]
    check_tree(store)


def test_homes_that_are_not_bad_stay(store):
    serve(store, OPENER, "b", filled_by=("p1",))
    serve(store, [user("x")], "y", filled_by=("p2",), engine="d2")
    assert store.forget_homes(lambda known: "p1" in known.filled_by) == 1
    assert look_up(store, [user("x"), assistant("y"), user("z")]).home == home("d2", 20, filled_by=("p2",))


def test_a_forgotten_conversation_gets_a_home_again(store):
    serve(store, OPENER, "b", filled_by=("p1",))
    store.forget_homes(lambda _: True)
    serve(store, NEXT, "d", engine="d2", filled_by=("p2",))
    assert look_up(store, [*NEXT, assistant("d"), user("e")]).home == home("d2", 40, filled_by=("p2",))
    assert store.forget_homes(lambda _: False) == 0


def test_a_branch_from_what_was_forgotten_has_no_home(store):
    serve(store, [system("s"), *OPENER], "b")
    store.forget_homes(lambda _: True)
    assert look_up(store, [system("s"), user("other")]).home is None


def test_raw_prompts_lose_their_homes_too(store):
    serve_raw(store, "one two", " three")
    assert store.forget_homes(lambda known: known.engine_id == "d1") == 1
    history = look_up_raw(store, "one two three four")
    assert (history.is_complete, history.home) == (True, None)
    assert store.forget_homes(lambda _: True) == 0


@given(
    turns=st.lists(st.tuples(WORDS, WORDS, st.sampled_from(["d1", "d2"])), max_size=20),
    bad=st.sampled_from(["d1", "d2"]),
)
@settings(max_examples=100, deadline=None)
def test_no_step_has_a_forgotten_home_and_the_count_is_of_conversations(turns, bad):
    store = Conversations(max_conversations=10, ttl_s=60)
    asked = []
    for opener, question, engine in turns:
        messages = [user(opener), assistant("b"), user(question)]
        serve(store, messages, "d", engine=engine)
        asked += [messages[:1], messages, [*messages, assistant("d"), user("e")]]
    rows = store.listing(now=0.0)
    count = store.count
    assert store.forget_homes(lambda known: known.engine_id == bad) == sum(row["home"] == bad for row in rows)
    assert store.count == count
    for messages in asked:
        history = look_up(store, messages)
        assert history.home is None or history.home.engine_id != bad
    check_tree(store)
