"""The tree of known steps, as columns of numbers."""

import pytest

from ppd_core.conversation.history import Home
from ppd_core.conversation.homes import Homes
from ppd_core.conversation.step_index import ABSENT
from ppd_core.conversation.tree import MOST_TOKENS, NONE, Tree

A, B, C, D = (bytes([65 + number]) * 16 for number in range(4))


@pytest.fixture
def tree():
    homes = Homes()
    homes.number(Home(engine_id="d1", incarnation=0, held_tokens=0))
    homes.number(Home(engine_id="d2", incarnation=0, held_tokens=0))
    return Tree(100, homes)


def grown(tree, parent, *keys, is_answer=False, held_tokens=5):
    return tree.add(parent, keys, held_tokens, 0, is_answer=is_answer)


def test_every_key_leads_to_its_segment(tree):
    segment = grown(tree, NONE, A, B, C)
    assert [tree.steps.get(key) for key in (A, B, C, D)] == [segment] * 3 + [ABSENT]
    assert (tree.keys(segment), tree.last_key(segment), tree.has_several(segment)) == ((A, B, C), C, True)


def test_a_segment_is_cut_where_a_branch_begins(tree):
    lower = grown(tree, NONE, A, B, C)
    upper = tree.cut_after(lower, A, 3)
    assert (tree.keys(upper), tree.keys(lower), tree.parent(lower)) == ((A,), (B, C), upper)
    assert (tree.steps.get(A), tree.steps.get(B), tree.held_tokens(upper)) == (upper, lower, 3)
    assert tree.is_continued(upper)


def test_answers_are_counted_along_the_path(tree):
    first = grown(tree, grown(tree, NONE, A), B, is_answer=True)
    second = grown(tree, first, C)
    assert [tree.answers(segment) for segment in (first, second)] == [1, 1]
    tree.mark_answer(second)
    assert (tree.answers(second), tree.held_tokens(second)) == (2, 5)


def test_keys_of_an_answer_come_and_go(tree):
    segment = grown(tree, NONE, A, is_answer=True)
    tree.put_before(segment, B)
    tree.put_before(segment, C)
    assert tree.keys(segment) == (C, B, A)
    tree.take_from(segment, B)
    tree.take_from(segment, C)
    assert (tree.keys(segment), tree.steps.count) == ((A,), 1)


def test_leaves_are_kept_by_their_last_use(tree):
    first, second = grown(tree, NONE, A), grown(tree, NONE, B)
    tree.use(first, 1.0)
    tree.use(second, 2.0)
    tree.use(first, 3.0)
    assert (tree.oldest(), tree.oldest_used_at(), tree.leaves) == (second, 2.0, 2)
    assert tree.newest_first(9) == [(first, 3.0), (second, 2.0)]
    grown(tree, second, C)
    assert (tree.leaves, tree.is_leaf(second), tree.is_continued(second)) == (1, False, True)


def test_what_goes_leaves_its_number_to_the_next(tree):
    parent = grown(tree, NONE, A)
    child = grown(tree, parent, B, C)
    tree.use(child, 1.0)
    assert tree.remove(child) == parent
    assert (tree.leaves, tree.steps.count, tree.is_continued(parent)) == (0, 1, False)
    assert grown(tree, parent, D) == child
    assert tree.keys(child) == (D,)


def test_a_path_settles_as_a_whole(tree):
    end = grown(tree, grown(tree, NONE, A), B)
    tree.use(end, 1.0)
    tree.settle(end, 1)
    assert [tree.home_number(segment) for segment in (end, tree.parent(end))] == [1, 1]
    assert (tree._homes.segments, tree._homes.leaves) == ([0, 2], [0, 1])


def test_more_tokens_than_a_number_holds_are_the_most_it_holds(tree):
    segment = grown(tree, NONE, A, held_tokens=1 << 40)
    assert tree.held_tokens(segment) == MOST_TOKENS
    tree.hold(segment, 1 << 50)
    assert tree.held_tokens(segment) == MOST_TOKENS
