"""The store keeps its bounds, knows what an unbounded one would, and forgets without a trace."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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

from ppd_core.conversation.conversations import EXPIRED_AT_ONCE, Conversations
from ppd_core.conversation.history import History
from ppd_core.conversation.identity import AnswerSteps, RememberedAnswer, last_assistant


@pytest.fixture
def store():
    return Conversations(max_conversations=100, ttl_s=60)


# bounds


def test_conversations_expire_after_their_last_use(store):
    serve(store, [user("a")], "b", now=0.0)
    serve(store, [user("c")], "d", now=0.0)
    next_turn = [user("a"), assistant("b"), user("x")]
    assert look_up(store, next_turn, now=50.0).is_complete
    assert store.expire(60.0) == 0
    assert store.expire(61.0) == 1
    assert look_up(store, next_turn, now=110.0).is_complete
    assert look_up(store, next_turn, now=171.0) == History(has_answers=True)
    check_empty(store)


def test_the_least_recently_used_conversation_goes_first():
    store = Conversations(max_conversations=3, ttl_s=60)
    for name in "abc":
        serve(store, [user(name)], "yes")
    look_up(store, [user("a"), assistant("yes"), user("x")])
    serve(store, [user("d")], "yes")
    known = [name for name in "abcd" if look_up(store, [user(name), assistant("yes"), user("x")]).is_complete]
    assert known == ["a", "c", "d"]


def test_a_shared_prefix_lives_as_long_as_anyone_uses_it():
    store = Conversations(max_conversations=1, ttl_s=60)
    for name in "abc":
        serve(store, [system("shared"), user(name)], "yes")
        assert look_up(store, [system("shared"), user("new")]).home is not None
    assert (store.count, store.steps) == (1, 3)
    serve(store, [user("other")], "yes")
    assert look_up(store, [system("shared"), user("c")]) == History()


def test_clear_forgets_everything_and_says_how_much(store):
    serve(store, [user("a")], "b")
    serve_raw(store, "a", "b")
    assert store.clear() == 2
    check_empty(store)
    serve(store, [user("a")], "b")
    assert store.count == 1


def test_the_listing_has_the_latest_first_and_keeps_to_its_limit(store):
    for index in range(5):
        serve(store, [user(str(index))], "yes", engine=f"d{index}", now=float(index))
    assert [row["home"] for row in store.listing(now=5.0, limit=2)] == ["d4", "d3"]


def test_very_long_conversations_are_bounded_by_their_steps():
    store = Conversations(max_conversations=100, ttl_s=60, max_steps=1000)
    for name in "abcdef":
        serve(store, [user(f"{name} {index}") for index in range(300)], "yes")
        assert store.steps <= 1000
    assert store.count == 3


def test_one_conversation_larger_than_the_store_does_not_empty_it():
    store = Conversations(max_conversations=100, ttl_s=60, max_steps=100)
    serve(store, [user("small")], "yes")
    serve(store, [user(str(index)) for index in range(100)], "yes")
    assert store.count == 1


def test_a_conversation_of_very_many_turns_can_be_forgotten():
    stores = [Conversations(max_conversations=2, ttl_s=60, max_steps=10**6) for _ in range(2)]
    for store in stores:
        steps = [index.to_bytes(16, "little") for index in range(100_000)]
        for turn in range(0, len(steps), 2000):
            store.remember_chat(steps[: turn + 1], None, home=home(), prompt_tokens=1, now=0.0)
    assert stores[0].clear() == 1
    assert stores[1].expire(100.0) == 1
    for store in stores:
        check_empty(store)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_conversations": 0, "ttl_s": 1}, "max_conversations: 0 given, must be at least 1"),
        ({"max_conversations": 1, "ttl_s": 0.0}, "ttl_s: 0.0 given, must be a number of seconds above 0"),
        ({"max_conversations": 1, "ttl_s": 1, "max_steps": 0}, "max_steps: 0 given, must be at least 1"),
    ],
)
def test_impossible_bounds_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Conversations(**values)


def test_a_hundred_thousand_conversations_keep_the_bound_and_the_lookup_time():
    store = Conversations(max_conversations=100_000, ttl_s=1e9)

    def key(index):
        return index.to_bytes(16, "little")

    def fill(indices):
        for index in indices:
            steps = [b"shared system...", key(2 * index)]
            answer = AnswerSteps(full=key(2 * index + 1))
            store.remember_chat(steps, answer, home=home(), prompt_tokens=1, now=float(index))

    def is_known(index):
        steps = [b"shared system...", key(2 * index), key(2 * index + 1), b"new"]
        return store.look_up_chat(steps, last_assistant=2, now=1e6).is_complete

    def lookup_s():
        rounds = []
        for _ in range(5):
            started_at = time.process_time()
            for index in range(1000):
                is_known(index)
            rounds.append(time.process_time() - started_at)
        return min(rounds)

    fill(range(1000))
    small_s = lookup_s()
    fill(range(1000, 100_000))
    assert lookup_s() < 5 * small_s
    fill(range(100_000, 120_000))
    assert store.count == 100_000
    # The first thousand were looked up after they were remembered, so the next ones went first.
    assert [is_known(index) for index in (0, 999, 1000, 20_999, 21_000, 119_999)] == [True] * 2 + [False] * 2 + [
        True
    ] * 2
    expired = [store.expire(1e10) for _ in range(100_000 // EXPIRED_AT_ONCE)]
    assert set(expired) == {EXPIRED_AT_ONCE}
    check_empty(store)


# properties

MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant"]),
        st.sampled_from("ab"),
    ),
    min_size=1,
    max_size=5,
)
REQUESTS = st.lists(st.tuples(MESSAGES, st.sampled_from(["a", "b", None]), st.sampled_from(["d1", "d2"])), max_size=12)


class Oracle:
    """The same memory, without bounds and without economy: every prefix is kept as it is."""

    def __init__(self):
        self.homes, self.answers, self.exact = {}, set(), set()

    def serve(self, messages, answer, engine):
        self.exact.add(prefix(messages))
        if answer is not None:
            messages = [*messages, assistant(answer)]
            self.answers.add(prefix(messages))
            self.exact.add(prefix(messages))
        for end in range(1, len(messages) + 1):
            self.homes[prefix(messages[:end])] = engine

    def look_up(self, messages):
        prefixes = [prefix(messages[:end]) for end in range(1, len(messages) + 1)]
        known = [each for each in prefixes if each in self.homes]
        last = last_assistant(messages)
        return {
            "known_answers": sum(each in self.answers for each in known),
            "is_complete": last >= 0 and prefixes[last] in self.answers,
            "has_answers": last >= 0,
            "engine": self.homes[known[-1]] if known else None,
            "tokens": 10 * max((len(each) for each in known if each in self.exact), default=0),
            "is_exact": bool(known) and known[-1] in self.exact,
        }


def prefix(messages):
    return tuple((message["role"], message["content"]) for message in messages)


@given(REQUESTS, st.lists(MESSAGES, max_size=8))
def test_an_unbounded_store_knows_what_an_oracle_knows(requests, queries):
    store, oracle = Conversations(max_conversations=1000, ttl_s=60), Oracle()
    for messages, answer, engine in requests:
        serve(store, messages, answer, engine=engine)
        oracle.serve(messages, answer, engine)
        check_tree(store)
    for messages in [*queries, *(messages for messages, _, _ in requests)]:
        history, expected = look_up(store, messages), oracle.look_up(messages)
        for name in ("known_answers", "is_complete", "has_answers"):
            assert getattr(history, name) == expected[name]
        assert (history.home and history.home.engine_id) == expected["engine"]
        if expected["is_exact"]:
            assert history.home.held_tokens == expected["tokens"]
        elif history.home is not None:
            assert history.home.held_tokens <= expected["tokens"]


@given(REQUESTS, st.integers(1, 3), st.integers(1, 10), st.lists(st.sampled_from(["", "x", "y"]), min_size=12))
def test_a_bounded_store_keeps_its_bounds_never_invents_and_forgets_without_a_trace(requests, most, steps, reasons):
    store, oracle = Conversations(max_conversations=most, ttl_s=5, max_steps=steps), Oracle()
    for now, (messages, answer, engine) in enumerate(requests):
        history, expected = look_up(store, messages, now=float(now)), oracle.look_up(messages)
        assert history.is_complete <= expected["is_complete"]
        assert history.known_answers <= expected["known_answers"]
        answer = answer and RememberedAnswer(content=answer, reasoning=reasons[now])
        serve(store, messages, answer, engine=engine, now=float(now))
        oracle.serve(messages, answer and answer.content, engine)
        assert store.count <= most
        assert store.steps <= steps
        check_tree(store)
    store.expire(1000.0)
    check_empty(store)


PIECES = st.lists(st.sampled_from(["a", "b" * 63, "c" * 64, "d" * 900, "é" * 20]), min_size=1, max_size=4).map("".join)


@settings(max_examples=60)
@given(st.lists(st.tuples(PIECES, PIECES), max_size=8), st.lists(PIECES, max_size=5), st.integers(1, 10))
def test_the_longest_remembered_raw_text_is_found(turns, queries, most):
    store, ends = Conversations(max_conversations=most, ttl_s=60), set()
    for prompt, answer in turns:
        ends.add(prompt + answer)
        serve_raw(store, prompt, answer)
        check_tree(store)
    for prompt in queries + [prompt + answer + "e" for prompt, answer in turns]:
        known = [end for end in ends if prompt.startswith(end)]
        history = look_up_raw(store, prompt)
        assert history.is_complete <= bool(known)
        if most >= len(turns) and known:
            assert history.home.held_tokens == max(map(len, known))
    store.expire(100.0)
    check_empty(store)
