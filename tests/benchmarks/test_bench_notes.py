import pytest

from chat_client import Answer
from notes import cold_direct_note


def answer(route, prompt_tokens, cached_tokens):
    return Answer(
        text="", first_token_s=0.1, total_s=1.0, prompt_tokens=prompt_tokens, completion_tokens=20,
        cached_tokens=cached_tokens, route=route, reason="", turn=1,
    )  # fmt: skip


def test_a_direct_turn_behind_less_than_a_block_is_explained():
    note = cold_direct_note([[answer("pd", 40, None), answer("direct", 80, 0), answer("direct", 120, 128)]])
    assert note.startswith("Turn 2 went direct and found nothing cached.")
    assert "128 tokens" in note


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(answer("direct", 80, 48), id="found"),
        pytest.param(answer("pd", 80, 0), id="not-direct"),
    ],
)
def test_nothing_is_explained_where_nothing_is_odd(second):
    assert cold_direct_note([[answer("pd", 40, None), second]]) is None


def test_a_long_history_that_is_not_found_is_no_matter_of_blocks():
    assert cold_direct_note([[answer("pd", 140, None), answer("direct", 180, 0)]]) is None
