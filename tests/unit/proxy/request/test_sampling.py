"""What of a finished request becomes a sample for the accuracy check."""

import json

import msgspec
import pytest
from tests.support.builders import aggregated_plan, direct_plan, pd_plan
from tests.support.parts import Answered, Parts, Remembering

from ppd_proxy.request.sampling import Sampling, broken_sample, candidate_of, sample_of
from ppd_proxy.request.signals import MakePlan
from ppd_wire.answers.candidate import Candidate

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
ANSWER = Candidate(
    prompt_token_ids=[1, 2, 3], token_ids=[4], logprobs=[-0.5], tops=[{}], finish_reason="stop", text="x", tool_calls=[]
)
SAID = {
    "prompt_token_ids": [1, 2, 3],
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "x"},
            "finish_reason": "stop",
            "token_ids": [4],
            "logprobs": {"content": [{"token": "x", "logprob": -0.5, "top_logprobs": []}]},
        }
    ],
}


class Sink(Remembering):
    def __init__(self, takes=True):
        super().__init__()
        self.asked_tops = 3
        self._takes = takes

    def is_sampled(self, public_id):
        return True

    def takes(self, body_bytes):
        return self._takes


@pytest.fixture
def ongoing():
    parts = Parts()
    parts.sampled = True
    ongoing = parts.read(BODY)
    parts.serving.plan(ongoing, MakePlan())
    ongoing.record.status = 200
    return ongoing


def offered(ongoing, candidate=ANSWER):
    return sample_of(ongoing.record, ongoing.request, ongoing.shown_id, candidate, 5.0)


async def told(ongoing, leg, **more):
    sink = Sink(**more)
    await Sampling(sink, lambda: 5.0).offer(ongoing, leg)
    return [what for what, *_ in sink.told], sink


def test_a_sample_says_who_was_asked_what_and_who_answered(ongoing):
    sample = offered(ongoing)
    assert (sample.id, sample.at) == (ongoing.record.request_id, 5.0)
    assert (sample.kind, sample.path) == ("chat", "/v1/chat/completions")
    assert (sample.model, sample.sampling, sample.prompt_tokens, sample.candidate) == ("m", "greedy", 3, ANSWER)
    assert (sample.route, sample.pair, sample.is_scorable) == ("pd", "p1:8000>d1:8000", True)


@pytest.mark.parametrize(
    "candidate",
    [None, msgspec.structs.replace(ANSWER, token_ids=[]), msgspec.structs.replace(ANSWER, finish_reason=None)],
)
def test_there_is_no_sample_of_what_is_no_whole_answer(ongoing, candidate):
    assert offered(ongoing, candidate) is None


def test_there_is_no_sample_of_a_request_that_reached_no_engine(ongoing):
    ongoing.record.decode_id = None
    assert offered(ongoing) is None


def test_where_the_prompts_ids_are_not_told_the_usage_counts(ongoing):
    ongoing.record.prompt_tokens = 9
    assert offered(ongoing, msgspec.structs.replace(ANSWER, prompt_token_ids=None)).prompt_tokens == 9


@pytest.mark.parametrize(("plan", "pair"), [(pd_plan(), "p1:8000>d1:8000"), (direct_plan(), "p7:8000>d1:8000")])
def test_an_attempt_whose_logprobs_were_no_numbers_is_a_sample_without_tokens(ongoing, plan, pair):
    ongoing.record.filled_by = ("p7:8000",)
    ongoing.broken_by = plan
    sample = broken_sample(ongoing, ongoing.request, 5.0)
    assert (sample.id, sample.pair) == (f"{ongoing.record.request_id}-broken", pair)
    assert (sample.candidate.token_ids, sample.is_scorable) == ([], False)


def test_without_a_split_attempt_that_broke_there_is_none(ongoing):
    assert broken_sample(ongoing, ongoing.request, 5.0) is None
    ongoing.broken_by = aggregated_plan()
    assert broken_sample(ongoing, ongoing.request, 5.0) is None


def test_the_candidate_is_what_the_engine_said(ongoing):
    candidate = candidate_of(ongoing, Answered(body=json.dumps(SAID).encode()))
    assert (candidate.token_ids, candidate.prompt_token_ids) == ([4], [1, 2, 3])


def test_an_attempt_that_was_not_asked_has_no_candidate(ongoing):
    leg = Answered(body=json.dumps(SAID).encode())
    ongoing.attempt = msgspec.structs.replace(ongoing.attempt, is_scored=False)
    assert candidate_of(ongoing, leg) is None


def test_legs_of_two_prompts_have_no_candidate(ongoing):
    ongoing.doubted = frozenset({"d1:8000"})
    assert candidate_of(ongoing, Answered(body=json.dumps(SAID).encode())) is None


async def test_a_finished_request_is_offered(ongoing):
    names, sink = await told(ongoing, Answered(body=json.dumps(SAID).encode()))
    assert names == ["offer"]
    assert sink.of("offer")[0][0].candidate.token_ids == [4]


async def test_what_the_sink_does_not_take_is_not_read(ongoing):
    assert (await told(ongoing, Answered(body=b"no answer"), takes=False))[0] == []


async def test_an_answer_that_cannot_be_held_against_a_baselines_is_skipped(ongoing):
    assert (await told(ongoing, Answered(body=b"{}")))[0] == ["skip"]


async def test_an_attempt_that_broke_is_told_whatever_came_after(ongoing):
    ongoing.broken_by = ongoing.attempt.plan
    ongoing.record.status = 500
    assert (await told(ongoing, None))[0] == ["broke"]


@pytest.mark.parametrize("fact", [{"status": 400}, {"is_client_gone": True}, {"route": "aggregated"}])
async def test_an_answer_that_no_client_got_from_a_split_engine_is_no_sample(ongoing, fact):
    for name, value in fact.items():
        setattr(ongoing.record, name, value)
    assert (await told(ongoing, Answered(body=json.dumps(SAID).encode())))[0] == []


def test_without_a_sink_nothing_is_sampled():
    sampling = Sampling(None, lambda: 5.0)
    assert (sampling.is_sampled("x"), sampling.asked_tops) == (False, 0)
