"""What goes with the accuracy commands' questions."""

import pytest

from ppd_wire.requests.asking import HELD_FOR_ANOTHER, is_held_for_another, one_token, salted, streamed, with_ids


def test_one_token_whatever_the_request_asked_for():
    fields = {"max_completion_tokens": 50, "min_tokens": 5, "tools": []}
    assert one_token(fields) == {"tools": [], "max_tokens": 1, "min_tokens": 0}


def test_a_body_is_added_to_and_not_changed():
    body = {"model": "m"}
    assert streamed(with_ids(body | salted("s"))) == {
        "model": "m", "cache_salt": "s", "return_token_ids": True, "return_tokens_as_token_ids": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert body == {"model": "m"}


@pytest.mark.parametrize(
    ("params", "is_held"),
    [({"remote_engine_id": "e"}, True), ({"remote_engine_id": ""}, False), (None, False), ([], False)],
)
def test_a_prefill_that_holds_its_kv_names_itself(params, is_held):
    [name] = HELD_FOR_ANOTHER
    assert is_held_for_another({name: params}) == is_held
    assert not is_held_for_another("no object")
