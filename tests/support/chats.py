"""Chats and raw prompts as short as a test can write them, and the books of the store that remembers them."""

from ppd_core.conversation.history import Home
from ppd_core.conversation.identity import RememberedAnswer, answer_steps, chat_steps, last_assistant, raw_steps, scope

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
    segments = {id(segment): segment for segment in store._steps.values()}
    children = dict.fromkeys(segments, 0)
    for segment in segments.values():
        assert segment.keys
        assert all(store._steps[key] is segment for key in segment.keys)
        if segment.parent is not None:
            children[id(segment.parent)] += 1
    assert {key: segment.children for key, segment in segments.items()} == children
    assert {id(segment) for segment in store._leaves} == {key for key, count in children.items() if not count}
    assert len(store._steps) == sum(len(segment.keys) for segment in segments.values())


def check_empty(store):
    assert not store.count
    assert not store._steps
    assert not store._leaves
    assert not store._raw_ends._marks
    assert not store._raw_ends._ends
