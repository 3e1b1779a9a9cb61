"""Whether both legs rendered the same prompt: what counts as a count, and which requests are never split."""

import json

import pytest
from tests.support.builders import decode, fleet, prefill

from ppd_core.policy.decide import decide
from ppd_core.policy.plan import Demand
from ppd_core.policy.situation import Situation
from ppd_wire.answers.prompt_counts import PromptCheck, counted
from ppd_wire.requests.generation import parse


@pytest.mark.parametrize(
    ("usage", "count"),
    [
        ({"prompt_tokens": 7}, 7),
        ({"prompt_tokens": 0}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": 7.0}, None),
        ({"prompt_tokens": None}, None),
        ({}, None),
        (None, None),
        ([7], None),
    ],
)
def test_only_a_whole_number_of_tokens_is_a_count(usage, count):
    assert counted(usage) == count


@pytest.mark.parametrize(
    ("p", "d", "result"),
    [(7, 7, "same"), (7, 8, "differs"), (8, 7, "differs"), (None, 7, "unknown"), (7, None, "unknown")],
)
def test_an_engine_without_a_count_is_at_no_fault(p, d, result):
    check = PromptCheck(p)
    assert check.result is None
    assert check.compare(d) == (result != "differs")
    assert (check.result, check.is_differing) == (result, result == "differs")


DEPENDENT = ["-1", '"-1"', "-1.0", '"-1.0"', "-1e0", '" -1 "', '"7"', "true", "7.0", "[]", '"\\u002d1"']
INDEPENDENT = ["null", "7", "0", "4096"]


@pytest.mark.parametrize("value", [*DEPENDENT, *INDEPENDENT])
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_prompt_whose_length_may_follow_from_max_tokens_is_never_split(kind, value):
    said = {"chat": '"messages":[{"role":"user","content":"hi"}]', "completion": '"prompt":"hi"'}[kind]
    generation = parse(kind, f'{{{said},"truncate_prompt_tokens": {value} }}'.encode())
    assert generation.prompt_depends_on_output == (value in DEPENDENT)
    plan = decide(
        Demand(prompt_depends_on_output=generation.prompt_depends_on_output),
        Situation(mode="ppd", fleet=fleet(prefill(), decode())),
    )
    if value in DEPENDENT:
        assert (plan.route, plan.reason) == ("direct", "prompt_depends_on_output")
    else:
        assert plan.route == "pd"


def test_of_two_truncations_the_last_counts_as_it_does_at_the_engine():
    for values, is_dependent in (("-1", "5"), False), (("5", "-1"), True):
        fields = ",".join(f'"truncate\\u005fprompt_tokens":{value}' for value in values)
        body = f'{{"prompt":"hi",{fields}}}'.encode()
        assert json.loads(body)["truncate_prompt_tokens"] == int(values[1])
        assert parse("completion", body).prompt_depends_on_output == is_dependent
