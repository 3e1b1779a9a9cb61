"""How much structure a JSON text has, told piece by piece: against one that reads character by character."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppd_wire.json.structure import COSTLY_VALUES, MAX_FIELDS, SLICE_BYTES, Structure

UNBOUNDED = 10**9


def read(*pieces, max_depth=UNBOUNDED, max_values=UNBOUNDED):
    structure = Structure(max_depth=max_depth, max_values=max_values)
    assert [structure.feed(piece) for piece in pieces] == [None] * len(pieces)
    return structure.depth, structure.deepest, structure.values, structure.fields


def slowly(text):
    depth = deepest = values = fields = 0
    is_in_string = is_escaped = False
    for byte in text:
        character = chr(byte)
        if is_escaped and character in '"\\':
            is_escaped = False
            continue
        is_escaped = character == "\\"
        if character == '"':
            is_in_string = not is_in_string
        elif not is_in_string and character in "[{":
            depth, values = depth + 1, values + COSTLY_VALUES
            deepest = max(deepest, depth)
        elif not is_in_string and character in "]}":
            depth -= 1
        elif not is_in_string and character == ":":
            values += COSTLY_VALUES
        elif not is_in_string and character == ",":
            values += 1
            fields += depth == 1
    return depth, deepest, values, fields


def cut(text, places):
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


noise = st.lists(st.sampled_from([b"\\", b'"', b"[", b"]", b"{", b"}", b",", b":", b"a", b"\xc3"]), max_size=60).map(
    b"".join
)
values = st.recursive(
    st.none() | st.integers() | st.text('a"\\[]{},'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[{,'), inner, max_size=4),
    max_leaves=30,
)


@given(noise, st.lists(st.integers(0, 1000), max_size=12))
def test_whatever_the_bytes_and_wherever_they_are_cut_the_figures_are_those_of_a_slow_reader(text, places):
    assert read(*cut(text, places)) == slowly(text)


@given(noise)
def test_single_bytes_give_the_same_figures(text):
    assert read(*(text[at : at + 1] for at in range(len(text)))) == slowly(text)


@given(values, st.booleans(), st.lists(st.integers(0, 1000), max_size=6))
def test_the_figures_are_those_of_the_json_value(value, ascii_only, places):
    def deepest(part):
        return 1 + max(map(deepest, members(part)), default=0) if isinstance(part, list | dict) else 0

    def count(part):
        if not isinstance(part, list | dict):
            return 0
        costly = 1 + (len(part) if isinstance(part, dict) else 0)
        return COSTLY_VALUES * costly + max(0, len(part) - 1) + sum(map(count, members(part)))

    fields = max(0, len(value) - 1) if isinstance(value, list | dict) else 0
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read(*cut(text, places)) == (0, deepest(value), count(value), fields)


def members(part):
    return part.values() if isinstance(part, dict) else part


def test_pieces_larger_than_a_slice_are_read_whole():
    text = b'{"content":"' + b'\\\\\\"[,' * SLICE_BYTES + b'","ids":[' + b"1," * SLICE_BYTES + b"1]}"
    assert read(text) == slowly(text) == (0, 2, 4 * COSTLY_VALUES + 1 + SLICE_BYTES, 1)


@pytest.mark.parametrize("piece_bytes", [1, 7, 10**6])
def test_too_much_is_told_as_soon_as_it_was_read(piece_bytes):
    deep, many = b"[" * 5 + b"1" * 100, b"[" + b"1," * 10 + b"1" * 100
    for text, what, found in ((deep, "levels of nesting", 5), (many, "values", COSTLY_VALUES + 10)):
        structure = Structure(max_depth=4, max_values=5 * COSTLY_VALUES if text is deep else COSTLY_VALUES + 9)
        pieces = [text[at : at + piece_bytes] for at in range(0, len(text), piece_bytes)]
        told = next(excess for excess in map(structure.feed, pieces) if excess is not None)
        assert (told.what, told.found) == (what, found)


def test_what_is_at_the_limit_passes():
    assert read(b"[[[[1,2]]]]", max_depth=4, max_values=4 * COSTLY_VALUES + 1) == (0, 4, 4 * COSTLY_VALUES + 1, 0)


def test_an_outermost_object_has_few_fields():
    fields = b'"a":1,' * MAX_FIELDS
    assert read(b"{" + fields + b'"b":{' + fields * 2 + b'"a":1}}')[3] == MAX_FIELDS
    told = Structure(max_depth=9, max_values=UNBOUNDED).feed(b"{" + fields + b'"a":1,"b":1}')
    assert (told.what, told.found) == ("fields", MAX_FIELDS + 1)
