"""The longest remembered text that a raw prompt starts with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_core.conversation.identity import BLOCK_UNITS, FINE_UNITS, raw_end, raw_steps
from ppd_core.conversation.raw_ends import RawEnds

SCOPE = b"s" * 16
EDGES = sorted(
    {edge + near for edge in (FINE_UNITS, 2 * FINE_UNITS, BLOCK_UNITS, 2 * BLOCK_UNITS) for near in (-1, 0, 1)} | {1, 7}
)
TEXT = "".join(chr(97 + at * at % 23) for at in range(2 * BLOCK_UNITS + 100))


def end_of(text, scope=SCOPE):
    return raw_end(raw_steps(scope, text))


def longest(ends, prompt):
    return ends.longest(raw_steps(SCOPE, prompt))


@pytest.fixture
def ends():
    return RawEnds()


@pytest.mark.parametrize("size", EDGES)
def test_a_text_is_found_in_what_goes_on_from_it_and_in_itself(ends, size):
    end = end_of(TEXT[:size])
    ends.add(end)
    assert longest(ends, TEXT[:size]) == longest(ends, TEXT) == end.exact
    assert longest(ends, TEXT[: size - 1]) is None
    assert longest(ends, TEXT[: size - 1] + "!" + TEXT) is None


@given(st.sets(st.sampled_from(EDGES)), st.integers(1, len(TEXT)))
def test_of_several_texts_the_longest_that_fits_is_found(sizes, size):
    ends = RawEnds()
    for each in sizes:
        ends.add(end_of(TEXT[:each]))
    best = max((each for each in sizes if each <= size), default=None)
    assert longest(ends, TEXT[:size]) == (None if best is None else end_of(TEXT[:best]).exact)


@given(st.sets(st.sampled_from(EDGES)), st.sets(st.sampled_from(EDGES)))
def test_what_is_discarded_is_found_no_more_and_nothing_else_goes(added, discarded):
    ends = RawEnds()
    for each in added:
        ends.add(end_of(TEXT[:each]))
        ends.add(end_of(TEXT[:each]))  # twice counts once
    for each in discarded:
        ends.discard(end_of(TEXT[:each]).exact)
    best = max(added - discarded, default=None)
    assert longest(ends, TEXT) == (None if best is None else end_of(TEXT[:best]).exact)


def test_token_ids_and_scopes_are_apart(ends):
    ids = [*range(FINE_UNITS + 5)]
    ends.add(end_of(ids))
    ends.add(end_of(TEXT[:10], scope=b"t" * 16))
    assert longest(ends, [*ids, 7]) == end_of(ids).exact
    assert longest(ends, TEXT) is None
