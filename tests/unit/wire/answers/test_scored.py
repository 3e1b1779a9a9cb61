"""What is read of `prompt_logprobs`."""

import json

import pytest

from ppd_wire.answers.scored import Position, read_scored


def body(*places):
    return json.dumps({"choices": [{"prompt_logprobs": list(places)}]}).encode()


def test_logprob_rank_and_margin_come_from_each_position():
    scored = body(
        None,
        {"7": {"logprob": -0.2, "rank": 1}},
        {"9": {"logprob": -2.0, "rank": 3}, "8": {"logprob": -0.5, "rank": 1}},
    )
    assert read_scored(scored, 1, [7, 9]) == [
        Position(-0.2, 1, 0.0, {"7": -0.2}), Position(-2.0, 3, 1.5, {"9": -2.0, "8": -0.5}),
    ]  # fmt: skip


def test_a_logprob_that_is_no_number_stays_none():
    [position] = read_scored(body({"7": {"logprob": None, "rank": 1}, "8": {"logprob": -1.0, "rank": 2}}), 0, [7])
    assert (position.logprob, position.margin, position.top) == (None, None, {"8": -1.0})


def test_nothing_is_decoded_of_the_places_of_the_prompt():
    scored = body("no place at all", {"7": {"logprob": -0.2}})
    assert read_scored(scored, 1, [7])[0].logprob == -0.2


@pytest.mark.parametrize(
    "scored",
    [
        body(), body("none"), b'{"choices": []}', b"{", b'{"choices": [{}]}',
        body({"7": {"logprob": "many"}}),
        pytest.param(b'{"choices": [{"prompt_logprobs": [' + b"[" * 2000 + b"]" * 2000 + b"]}]}", id="deep"),
    ],
)  # fmt: skip
def test_a_body_that_does_not_tell_is_refused(scored):
    with pytest.raises(ValueError, match="prompt logprobs"):
        read_scored(scored, 0, [7])


@pytest.mark.parametrize("place", [None, {"8": {"logprob": -1.0}}])
def test_only_who_is_strict_minds_that_the_answers_own_token_is_not_listed(place):
    [position] = read_scored(body(place), 0, [7])
    assert (position.logprob, position.rank) == (None, None)
    with pytest.raises(ValueError, match="leave out"):
        read_scored(body(place), 0, [7], is_strict=True)
