"""The noise floor of compare: how many answers are under way, and that all of them are measured."""

import asyncio

import pytest
from aiohttp import web
from tests.support.acc.engines import chat_answer, scored_prompt, scripted_engine

from ppd_acc.ask.access import Access, Sampling
from ppd_acc.ask.answers import Answer
from ppd_acc.ask.engines import EngineTrouble, engines
from ppd_acc.ask.question import Question
from ppd_acc.compare.compare import compare_answers, noise_floor, noise_of, spread
from ppd_acc.data.report import LONGER_THAN_FLOOR
from ppd_acc.views import noise_line
from ppd_accuracy.answers.flips import measure, replay_noise_of

SAMPLING = Sampling(temperature=0.0, top_p=1.0, seed=1, max_tokens=2, top_k=2)


def access(**fields):
    plain = {"model": "m", "api_key": None, "headers": {}, "endpoint": "chat", "timeout_s": 10.0, "retries": 0}
    return Access(**(plain | {"retry_delay_s": 0.0, "concurrency": 4} | fields))


@pytest.mark.parametrize("count", [0, 1, 7])
async def test_every_answer_is_measured_and_reported(count):
    prompts, reported = [], []

    def answering(body):
        if "prompt_logprobs" in body:
            return scored_prompt(body["prompt"], {})
        prompts.append(body["messages"][0]["content"])
        return chat_answer([1, 2], [{1: -0.1, 2: -2.0}, {2: -0.1, 1: -2.0}], text="x")

    async with scripted_engine(answering) as url, engines(access(), url) as (engine,):
        floor = await noise_floor(
            engine, [Question(prompt="a"), Question(prompt="b")], SAMPLING, count, reported.append
        )
    assert (floor.answers, len(set(prompts)), reported) == (count, count, [*range(1, count + 1)])
    assert floor.is_scored == (count > 0)


async def test_answers_are_finished_as_evenly_as_they_are_begun():
    """Where all are asked before the first is scored, nothing is done for long, and then everything at once."""
    prompts, ahead = set(), []

    def answering(body):
        if "prompt_logprobs" in body:
            return scored_prompt(body["prompt"], {})
        prompts.add(body["messages"][0]["content"])
        return chat_answer([1, 2], [{1: -0.1, 2: -2.0}, {2: -0.1, 1: -2.0}], text="x")

    async with scripted_engine(answering) as url, engines(access(concurrency=2), url) as (engine,):
        await noise_floor(
            engine, [Question(prompt="a")], SAMPLING, 20, lambda done: ahead.append(len(prompts) - done)
        )
    assert len(prompts) == 20
    assert max(ahead) <= 2


async def test_answers_that_failed_are_counted_and_the_first_reason_is_told():
    asked = iter(range(100))

    def answering(body):
        if "prompt_logprobs" in body:
            return scored_prompt(body["prompt"], {})
        if next(asked) == 2:
            raise web.HTTPBadRequest(text="no more")
        return chat_answer([1, 2], [{1: -0.1, 2: -2.0}, {2: -0.1, 1: -2.0}], text="x")

    async with scripted_engine(answering) as url, engines(access(), url) as (engine,):
        floor = await noise_floor(engine, [Question(prompt="a")], SAMPLING, 5, lambda done: None)
    assert (floor.answers, floor.failed, noise_of(floor).failed) == (4, 1, 1)
    assert "answered 400: no more" in floor.failure
    assert f"; 4 of 5 answers: the others failed: {floor.failure}" in noise_line(floor)
    assert floor.of_run(7).failed == 1


async def test_a_huge_floor_has_few_answers_under_way():
    most = 0

    def report(done):
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))

    async with engines(access(timeout_s=1.0), "http://127.0.0.1:1") as (engine,):
        with pytest.raises(EngineTrouble):
            await noise_floor(engine, [Question(prompt="a")], SAMPLING, 1500, report)
    assert 0 < most < 1600


def test_few_answers_are_of_all_lengths_and_the_longest_is_one_of_them():
    questions = [Question(prompt="x" * length) for length in (900, 5, 40, 3000, 300, 10)]
    assert [question.size for question in spread(questions, 3)] == [10, 300, 3000]
    assert [question.size for question in spread(questions, 1)] == [3000]
    conversation = Question(messages=[{"role": "user", "content": "y" * 5000}])
    assert spread([conversation, *questions], 1) == [conversation]


def test_where_there_are_too_few_questions_they_are_varied():
    asked = spread([Question(prompt="a"), Question(prompt="b")], 5)
    assert len({question.text for question in asked}) == 5
    assert spread([], 3) == []


async def test_the_floor_knows_how_long_its_prompts_were():
    def answering(body):
        if "prompt_logprobs" in body:
            return scored_prompt(body["prompt"], {})
        prompt = range(len(body["messages"][0]["content"]))
        return chat_answer([1, 2], [{1: -0.1, 2: -2.0}, {2: -0.1, 1: -2.0}], text="x", prompt=prompt)

    async with scripted_engine(answering) as url, engines(access(), url) as (engine,):
        questions = [Question(prompt="a" * 10), Question(prompt="a" * 2000)]
        floor = await noise_floor(engine, questions, SAMPLING, 2, lambda done: None)
    assert floor.longest_prompt == 2000
    assert [bucket for bucket, _ in floor.longer] == [256, 2048]


async def test_an_engine_that_cannot_score_is_measured_by_its_replays():
    def answering(body):
        if "prompt_logprobs" in body:
            raise web.HTTPInternalServerError(text="no scores")
        return chat_answer([1, 2], [{1: -0.1, 2: -2.0}, {2: -0.1, 1: -2.0}], text="x")

    async with scripted_engine(answering) as url, engines(access(), url) as (engine,):
        floor = await noise_floor(engine, [Question(prompt="a")], SAMPLING, 2, lambda done: None)
    assert (floor.answers, floor.is_scored, floor.tokens) == (2, False, 4)


def one_token(token, other, prompt_tokens):
    """An answer that prefers its token by 1.5 nats."""
    tops = [{str(token): -0.2, str(other): -1.7}]
    return Answer(text="x", tokens=[token], logprobs=[-0.2], tops=tops, unit="tokens", prompt_tokens=prompt_tokens)


@pytest.mark.parametrize(("prompt_tokens", "status", "tags"), [
    (200, "real", []), (300, "unclassified", [LONGER_THAN_FLOOR]), (None, "real", []),
])  # fmt: skip
def test_a_difference_in_a_prompt_longer_than_measured_is_not_judged(prompt_tokens, status, tags):
    floor = replay_noise_of([measure([0.01] * 500, [0.01] * 500, prompt_tokens=40)])
    one, other = one_token(1, 2, prompt_tokens), one_token(2, 1, prompt_tokens)
    sample = compare_answers("s", Question(), one, other, floor, is_greedy=True)
    assert (sample.status, sample.tags) == (status, tags)
