"""Chats and raw prompts as short as a test can write them, and the books of the store that remembers them."""

from ppd_core.conversation.history import Home
from ppd_core.conversation.identity import RememberedAnswer, answer_steps, chat_steps, last_assistant, raw_steps, scope
from ppd_core.conversation.tree import NONE

SCOPE = scope(api_key="key", fields={})


def user(content, **values):
    return {"role": "user", "content": content, **values}


def assistant(content, **values):
    return {"role": "assistant", "content": content, **values}


def system(content):
    return {"role": "system", "content": content}


def home(engine="d1", tokens=0, incarnation=1, filled_by=(), salt=""):
    return Home(engine_id=engine, incarnation=incarnation, held_tokens=tokens, filled_by=filled_by, salt=salt)


def serve(
    store, messages, answer, *, engine="d1", now=0.0, prompt_tokens=None, scope=SCOPE, incarnation=1, filled_by=(),
    salt="",
):  # fmt: skip
    """Remember an answered chat; by default every message is ten tokens long."""
    steps = chat_steps(scope, messages)
    tokens = 10 * len(messages) if prompt_tokens is None else prompt_tokens
    if isinstance(answer, str):
        answer = RememberedAnswer(content=answer)
    store.remember_chat(
        steps,
        answer and answer_steps(steps[-1], answer),
        home=home(engine, tokens + 10, incarnation, filled_by, salt),
        prompt_tokens=tokens,
        now=now,
    )


def look_up(store, messages, *, now=0.0, scope=SCOPE):
    return store.look_up_chat(chat_steps(scope, messages), last_assistant=last_assistant(messages), now=now)


def serve_raw(store, prompt, answer, *, engine="d1", now=0.0, scope=SCOPE):
    store.remember_raw(
        raw_steps(scope, prompt),
        answer,
        home=home(engine, len(prompt) + len(answer or "")),
        prompt_tokens=len(prompt),
        now=now,
    )


def look_up_raw(store, prompt, *, now=0.0, scope=SCOPE):
    return store.look_up_raw(raw_steps(scope, prompt), now=now)


def check_tree(store):
    """The store's own books agree: every step leads to its segment, children are counted, leaves are listed."""
    tree, homes = store._tree, store._homes
    segments, free = set(range(len(tree._parents))), tree._first_free
    while free != NONE:
        segments.remove(free)
        free = tree._parents[free]
    children = dict.fromkeys(segments, 0)
    for segment in segments:
        assert all(tree.steps.get(key) == segment for key in tree.keys(segment))
        if tree.parent(segment) != NONE:
            children[tree.parent(segment)] += 1
    leaves = {segment for segment, count in children.items() if not count}
    assert {segment: max(0, tree._ties[segment]) for segment in segments} == children
    assert {segment for segment in segments if tree.is_leaf(segment)} == leaves
    assert {segment for segment, _ in tree.newest_first(len(segments) + 1)} == leaves
    assert store.count == len(leaves)
    assert store.steps == sum(len(tree.keys(segment)) for segment in segments)
    for number in range(len(homes.segments)):
        assert homes.segments[number] == sum(tree.home_number(segment) == number for segment in segments)
        assert homes.leaves[number] == sum(tree.home_number(segment) == number for segment in leaves)


def check_empty(store):
    assert not store.count
    assert not store.steps
    assert not store._raw_ends._marks
    assert not store._raw_ends._ends
