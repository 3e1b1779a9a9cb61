"""Which requests are samples, what they can be judged by, and who answers for them."""

from typing import Any

import msgspec
import pytest

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.shadow.sample import Sample, identity_of, is_sampled, sampling_of, scopes_of
from ppd_wire.answers.candidate import Candidate


def fields(**values: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def sample(**changes: Any) -> Sample:
    candidate = Candidate(
        prompt_token_ids=[1, 2], token_ids=[3], logprobs=[-0.1], tops=[], finish_reason="stop", text="x", tool_calls=[]
    )
    values = {
        "id": "i", "at": 0.0, "kind": "completion", "path": "/v1/completions", "fields": {}, "body": b"{}",
        "model": "m", "route": "pd", "reason": DecisionReason.FIRST_TURN, "turn": 1, "prefill_id": "p",
        "decode_id": "d", "filled_by": ("p",), "sampling": "greedy", "is_scorable": True, "prompt_tokens": 2,
        "candidate": candidate,
    }  # fmt: skip
    return Sample(**{**values, **changes})


def test_a_share_of_the_ids_is_sampled_and_a_higher_rate_keeps_them() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    few = {each for each in ids if is_sampled(each, 0.05)}
    assert 120 < len(few) < 290
    assert few < {each for each in ids if is_sampled(each, 0.2)}
    assert not any(is_sampled(each, 0) for each in ids)
    assert all(is_sampled(each, 1) for each in ids)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"temperature": 0}, "greedy"),
        ({"temperature": 0.0, "logit_bias": {}}, "greedy"),
        ({"temperature": 0, "tool_choice": "auto", "presence_penalty": 0}, "greedy"),
        ({"temperature": 0, "repetition_penalty": 1.0, "response_format": {"type": "text"}}, "greedy"),
        ({}, "sampled"),
        ({"temperature": 0.7}, "sampled"),
        ({"temperature": None}, "sampled"),
        ({"temperature": "hot"}, "sampled"),
        ({"temperature": 0, "repetition_penalty": 1.1}, "shaped"),
        ({"temperature": 0, "presence_penalty": 1.0}, "shaped"),
        ({"temperature": 0, "frequency_penalty": 1.0}, "shaped"),
        ({"temperature": 0, "thinking_token_budget": 0}, "shaped"),
        ({"temperature": 0, "logit_bias": {"5": -100}}, "shaped"),
        ({"temperature": 0, "min_tokens": 5}, "shaped"),
        ({"temperature": 1, "response_format": {"type": "json_object"}}, "shaped"),
        ({"temperature": 0, "tool_choice": "required"}, "shaped"),
    ],
)
def test_how_tokens_were_chosen_follows_from_the_request(values: dict[str, Any], expected: str) -> None:
    assert sampling_of(fields(**values)) == expected


def test_the_same_prompt_and_answer_are_one_identity() -> None:
    assert identity_of(sample()) == identity_of(sample(id="other", at=9.0))
    other = msgspec.structs.replace(sample().candidate, token_ids=[4])
    assert identity_of(sample(candidate=other)) != identity_of(sample())


def test_a_pd_turn_is_charged_to_its_pair() -> None:
    assert scopes_of(sample(), ()) == ("route:pd", "pair:p>d")


def test_a_direct_turn_is_charged_to_the_pair_that_filled_its_home() -> None:
    direct = sample(route="direct", prefill_id=None, filled_by=("q",))
    assert scopes_of(direct, ()) == ("route:direct", "pair:q>d")


def test_a_home_that_its_engine_filled_itself_is_no_pairs_fault() -> None:
    assert scopes_of(sample(route="direct", prefill_id=None, filled_by=()), ()) == ("route:direct",)


def test_what_several_pairs_filled_is_charged_to_none() -> None:
    assert scopes_of(sample(route="direct", prefill_id=None, filled_by=("p", "q")), ()) == ("route:direct",)
    assert scopes_of(sample(filled_by=("q", "p")), ()) == ("route:pd",)


def test_a_pd_turn_on_a_decode_engine_that_a_red_pair_filled_is_kept_apart() -> None:
    assert scopes_of(sample(), ("pair:q>d",)) == ("route:pd",)
    assert scopes_of(sample(), ("pair:q>e", "route:pd")) == ("route:pd", "pair:p>d")
    assert scopes_of(sample(), ("pair:p>d",)) == ("route:pd", "pair:p>d")
    direct = sample(route="direct", prefill_id=None, filled_by=("p",))
    assert scopes_of(direct, ("pair:q>d",)) == ("route:direct", "pair:p>d")
