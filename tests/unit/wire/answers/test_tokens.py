"""Tokens that are named by their ids."""

import pytest

from ppd_wire.answers.tokens import id_of


@pytest.mark.parametrize(
    ("name", "token_id"),
    [
        ("token_id:17", 17),
        ("17", None),
        ("token_id:", None),
        ("token_id:-1", None),
        ("a", None),
        ("token_id:\u00b2", None),
    ],
)
def test_a_name_gives_an_id_only_where_it_says_so(name, token_id):
    assert id_of(name) == token_id
