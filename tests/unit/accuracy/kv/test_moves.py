"""Content that lies at another place. Through the whole of find_patterns: test_patterns."""

from tests.support.connector.kv_tensors import gaussian, tensor

from ppd_accuracy.kv.elements import FP32
from ppd_accuracy.kv.moves import moved_heads, moved_tokens
from ppd_accuracy.kv.sketches import match_tolerance, sketch

ONE = gaussian(4, 64, 32)
TOLERANCE = match_tolerance(FP32)


def left(other):
    return (ONE != other).any(axis=2)


def heads(other):
    return list(moved_heads(sketch(tensor(ONE)), sketch(tensor(other)), left(other), TOLERANCE, 16))


def tokens(other):
    return list(moved_tokens(sketch(tensor(ONE)), sketch(tensor(other)), left(other), TOLERANCE, 16))


def test_swapped_heads_explain_all_of_their_rows():
    [(finding, explained)] = heads(ONE[[1, 0, 2, 3]])
    assert (finding.heads, finding.sources, finding.tokens) == ((0, 1), (1, 0), ())
    assert explained.tolist() == left(ONE[[1, 0, 2, 3]]).tolist()


def test_a_head_that_moved_for_some_tokens_is_told_with_them():
    other = ONE.copy()
    other[2, 16:48] = ONE[3, 16:48]
    [(finding, explained)] = heads(other)
    assert (finding.heads, finding.sources, finding.tokens) == ((2,), (3,), ((16, 48),))
    assert explained.sum() == 32


def test_other_numbers_are_no_move():
    other = ONE.copy()
    other[2, 16:48] = gaussian(32, 32, seed=7)
    assert heads(other) == []
    assert tokens(other) == []


def test_tokens_that_hold_what_comes_later_say_by_how_much():
    other = ONE.copy()
    other[:, 8:40] = ONE[:, 12:44]
    [(finding, explained)] = tokens(other)
    assert (finding.offset, finding.tokens) == (4, ((8, 40),))
    assert explained[:, 8:40].all()
    assert explained.sum() == 4 * 32


def test_tokens_may_move_in_some_heads_only():
    other = ONE.copy()
    other[1, 0:32] = ONE[1, 16:48]
    [(finding, _)] = tokens(other)
    assert (finding.offset, finding.heads) == (16, (1,))


def test_where_nothing_is_wrong_nothing_has_moved():
    assert heads(ONE) == []
    assert tokens(ONE) == []
