"""What of a finished request becomes a sample for the shadow."""

import msgspec
import pytest
from tests.support.builders import aggregated_plan, direct_plan, pd_plan
from tests.support.shared import make_call, make_shared
from tests.support.steps import run

from ppd_core.policy.plan import DecisionReason
from ppd_proxy.handling import Handling
from ppd_proxy.offering import broken_sample, sample_of
from ppd_wire.answers.candidate import Candidate

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
ANSWER = Candidate(
    prompt_token_ids=[1, 2, 3], token_ids=[4], logprobs=[-0.5], tops=[{}], finish_reason="stop", text="x", tool_calls=[]
)
PATH = b"/v1/chat/completions?a=1"


@pytest.fixture
async def handling():
    handling = Handling(make_shared(), make_call(BODY))
    run(handling.identify())
    handling.record.route, handling.record.reason = "pd", DecisionReason.FIRST_TURN
    handling.record.prefill_id, handling.record.decode_id = "p1:8000", "d1:8000"
    return handling


def offered(handling, candidate=ANSWER):
    return sample_of(handling, candidate, PATH, lambda: 5.0)


async def test_a_sample_says_who_was_asked_what_and_who_answered(handling):
    sample = offered(handling)
    assert (sample.id, sample.at) == (handling.request_id, 5.0)
    assert (sample.kind, sample.path) == ("chat", "/v1/chat/completions")
    assert (sample.model, sample.sampling, sample.prompt_tokens, sample.candidate) == ("m", "greedy", 3, ANSWER)
    assert (sample.route, sample.pair, sample.is_scorable) == ("pd", "p1:8000>d1:8000", True)


@pytest.mark.parametrize(
    "candidate",
    [None, msgspec.structs.replace(ANSWER, token_ids=[]), msgspec.structs.replace(ANSWER, finish_reason=None)],
)
async def test_there_is_no_sample_of_what_is_no_whole_answer(handling, candidate):
    assert offered(handling, candidate) is None


async def test_there_is_no_sample_of_a_request_that_reached_no_engine(handling):
    handling.record.decode_id = None
    assert offered(handling) is None


async def test_where_the_prompts_ids_are_not_told_the_usage_counts(handling):
    handling.record.prompt_tokens = 9
    assert offered(handling, msgspec.structs.replace(ANSWER, prompt_token_ids=None)).prompt_tokens == 9


@pytest.mark.parametrize(("plan", "pair"), [(pd_plan(), "p1:8000>d1:8000"), (direct_plan(), "p7:8000>d1:8000")])
async def test_an_attempt_whose_logprobs_were_no_numbers_is_a_sample_without_tokens(handling, plan, pair):
    handling.record.filled_by = ("p7:8000",)
    handling.broken_by = plan
    sample = broken_sample(handling, PATH, lambda: 5.0)
    assert (sample.id, sample.pair) == (f"{handling.request_id}-broken", pair)
    assert (sample.candidate.token_ids, sample.is_scorable) == ([], False)


async def test_without_a_split_attempt_that_broke_there_is_none(handling):
    assert broken_sample(handling, PATH, lambda: 5.0) is None
    handling.broken_by = aggregated_plan()
    assert broken_sample(handling, PATH, lambda: 5.0) is None
