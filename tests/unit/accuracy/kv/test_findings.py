"""The words for what was found."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_accuracy.kv.findings import (
    are_blocks,
    heads_of,
    ranges_of,
    tokens_of,
    told,
    told_blocks,
    told_moves,
    told_ranges,
)


@pytest.mark.parametrize(
    ("moved", "sources", "text"),
    [
        ((1, 3), (3, 1), "heads 1 and 3 are swapped"),
        ((0, 1, 2, 3), (1, 2, 3, 0), "heads are rotated: head i holds head (i + 1) mod 4"),
        ((2,), (0,), "head 2 holds the content of head 0"),
        ((0, 1, 2), (1, 2, 0), "heads are exchanged: 0 holds 1, 1 holds 2, 2 holds 0"),
        ((0, 1), (3, 3), "heads hold others' content: 0 holds 3, 1 holds 3"),
    ],
)
def test_moves_are_told_by_what_they_are(moved, sources, text):
    assert told_moves("head", moved, sources, 4) == text


def test_of_many_moves_eight_are_shown():
    text = told_moves("head", range(10), [11] * 10, 12)
    assert "7 holds 11 and 2 more" in text
    assert "8 holds" not in text


@given(st.lists(st.booleans(), max_size=40))
def test_ranges_are_the_runs_of_a_mask(mask):
    ranges = ranges_of(np.array(mask, np.bool_))
    assert [any(start <= place < stop for start, stop in ranges) for place in range(len(mask))] == mask
    assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(ranges))


def test_ranges_for_people_have_both_ends():
    assert told_ranges([(3, 4)]) == "token 3"
    assert told_ranges([(0, 2), (5, 6)]) == "tokens 0 to 1, 5"
    assert told_ranges([(10 * n, 10 * n + 1) for n in range(6)]) == "tokens 0, 10, 20, 30 and 2 more ranges"
    assert told("layer", [1, 2, 3, 7]) == "layers 1 to 3, 7"


def test_blocks_are_told_only_where_ranges_begin_and_end_with_them():
    assert are_blocks([(16, 48)], 16, 100)
    assert are_blocks([(96, 100)], 16, 100), "the last block may be short"
    assert not are_blocks([(16, 40)], 16, 100)
    assert told_blocks([(16, 48), (96, 100)], 16, 100) == " (blocks 1 to 2, 6 of 16 tokens)"
    assert told_blocks([(16, 40)], 16, 100) == ""


def test_where_something_is_by_tokens_and_by_heads():
    mask = np.array([[0, 1, 0], [0, 0, 0], [1, 1, 0]], np.bool_)
    assert tokens_of(mask).tolist() == [True, True, False]
    assert heads_of(mask) == (0, 2)
